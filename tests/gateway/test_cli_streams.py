"""A standard stream that cannot be used is told in one line, whatever the command."""

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


def without(stream: int, *words: str) -> list[str]:
    """The command line of `tollhouse` with this standard stream closed."""
    run = [sys.executable, "-c", MAIN, *words]
    close = f"import os; os.close({stream}); os.execv({sys.executable!r}, {run!r})"
    return [sys.executable, "-c", close]


def tollhouse(out: int | IO[bytes] | None, *words: str, **env: str) -> tuple[int, str]:
    """Exit status and what was told; `out` None closes standard output."""
    run = [sys.executable, "-c", MAIN, *words] if out is not None else without(1, *words)
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


@pytest.mark.parametrize("command", ["score", "explain"])
def test_an_input_that_is_closed(command: str) -> None:
    args = ["router", "score", "--input", "-", "--output", "-", "--artefact", "heuristic"]
    words = args if command == "score" else ["explain", "-"]
    done = subprocess.run(without(0, *words), capture_output=True, text=True, timeout=120)
    said = "tollhouse: standard input cannot be read: it is closed\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_nobody_needs_to_hear_what_is_done(rows: str, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    router = ["--artefact", "heuristic"]
    to_file = ["router", "score", "--input", rows, "--output", str(scores), *router]
    for words in (commands(rows)["eval"], commands(rows)["score"], to_file):
        done = subprocess.run(without(2, *words), stdout=subprocess.PIPE, timeout=120)
        assert done.returncode == 0
        assert bool(done.stdout) == (words is not to_file)
    assert len(scores.read_text().splitlines()) == 60


def test_nor_what_went_wrong(tmp_path: Path) -> None:
    words = ["check", str(tmp_path / "nowhere.toml")]
    done = subprocess.run(without(2, *words), stdout=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stdout) == (2, b"")
