"""One refit in a process of its own: `python -m gateway.learning.refit_process BASE OUT NAME SEED`,
and after these, for the card of a model, its `CardOrder` as JSON.

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
    base, out, name, seed, *order = argv
    with contextlib.suppress(OSError):
        # Requests go before refits.
        os.nice(10)
    from routers.cards import CardError, CardOrder
    from routers.labels import LabelsError, parse_rows
    from routers.model_rows import parse_model_rows
    from routers.onnx.manifest import ArtefactError
    from routers.refit import CardReport, RefitReport, run, run_card

    answer: dict[str, object]
    report: RefitReport | CardReport
    try:
        # Whatever they print must not end up in the answer.
        with contextlib.redirect_stdout(sys.stderr):
            if order:
                card = msgspec.json.decode(order[0], type=CardOrder)
                rows_of_it = parse_model_rows(sys.stdin.buffer, "rows")
                report = run_card(card, rows_of_it, Path(base), Path(out))
            else:
                rows = parse_rows(sys.stdin.buffer, "rows")
                report = run(rows, Path(base), Path(out), name=name, seed=int(seed))
        answer = {"report": report}
    except (LabelsError, ArtefactError, CardError) as exc:
        answer = {"error": str(exc)}
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
