"""A standard output that cannot be written is told in one line, whatever the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

MAIN = "import sys; from gateway.cli import main; sys.exit(main())"
FULL = "tollhouse: standard output cannot be written: No space left on device\n"
CLOSED = "tollhouse: standard output cannot be written: it is closed\n"


def tollhouse(out: int | IO[bytes] | None, *words: str, **env: str) -> tuple[int, str]:
    """Exit status and what was told; `out` None closes standard output."""
    close = "import os; os.close(1)\n" if out is None else ""
    run = [sys.executable, "-c", MAIN, *words]
    if close:
        run = [sys.executable, "-c", f"{close}os.execv({sys.executable!r}, {run!r})"]
    done = subprocess.run(
        run,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env={**os.environ, **env},
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    found = [
        {"prompt": "Compare the two. " * (1 + i % 12), "local_ok": i % 12 < 7, "frontier_ok": True}
        for i in range(60)
    ]
    file.write_text("\n".join(json.dumps(row) for row in found))
    return str(file)


def commands(rows: str) -> dict[str, list[str]]:
    """Little text, much at once, and bytes."""
    router = ["--artefact", "heuristic"]
    return {
        "version": ["--version"],
        "help": ["router", "--help"],
        "schema": ["schema"],
        "eval": ["router", "eval", "--data", rows, *router],
        "score": ["router", "score", "--input", rows, "--output", "-", *router],
    }


NAMES = sorted(commands(""))


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name: str, unbuffered: str, rows: str) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = tollhouse(full, *commands(rows)[name], PYTHONUNBUFFERED=unbuffered)
    assert (code, told) == (1, FULL)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_is_gone_is_not_told(name: str, rows: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert tollhouse(writer, *commands(rows)[name]) == (1, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("name", ["version", "schema"])
def test_one_that_is_closed(name: str) -> None:
    assert tollhouse(None, *commands("")[name]) == (1, CLOSED)


def test_what_went_wrong_first_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = tollhouse(full, "check", str(tmp_path / "nowhere.toml"))
    assert code == 2
    assert "nowhere.toml: cannot be read" in told
    assert "Traceback" not in told
