"""One refit in a process of its own: `python -m gateway.learning.refit_process BASE OUT NAME SEED`.

Rows come in on standard input as JSON Lines. Their text is never written anywhere; the artefact in
OUT holds a vector of each text that was fitted, and its labels. One JSON object goes out on
standard output: `{"report": ...}`, or `{"error": "..."}` for rows or an artefact that cannot be
used. A process of its own, because fitting takes a core for seconds: neither the event loop nor the
interpreter's lock of a serving worker may wait for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import msgspec


def main(argv: list[str]) -> int:
    base, out, name, seed = argv
    with contextlib.suppress(OSError):
        # Requests go before refits.
        os.nice(10)
    from routers.labels import LabelsError, parse_rows
    from routers.onnx.manifest import ArtefactError
    from routers.refit import run

    answer: dict[str, object]
    try:
        rows = parse_rows(sys.stdin.buffer, "rows")
        # Whatever it prints must not end up in the answer.
        with contextlib.redirect_stdout(sys.stderr):
            report = run(rows, Path(base), Path(out), name=name, seed=int(seed))
        answer = {"report": report}
    except (LabelsError, ArtefactError) as exc:
        answer = {"error": str(exc)}
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
