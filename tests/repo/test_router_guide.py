"""The guide `docs/router.md`, tried as a new user would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.parser import build_parser
from routers.train.sources import sources

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "router.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", GUIDE, re.S)
COMMANDS = [
    shlex.split(call, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    for call in line.split("|")
    if call.strip().startswith("tollhouse ")
]
MODULES = sorted(set(re.findall(r"python -m ([\w.]+)", GUIDE)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_one(command: list[str]) -> None:
    assert build_parser().parse_args(command[1:]).target


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_one(module: str) -> None:
    assert (Path(__file__).resolve().parents[2] / f"{module.replace('.', '/')}.py").is_file()


def test_everything_that_can_be_fetched_is_named() -> None:
    (fetch,) = [command for command in COMMANDS if command[2:4] == ["data", "fetch"]]
    named = build_parser().parse_args(fetch[1:]).names
    assert sorted(named) == sorted(name for name, source in sources().items() if source.files)


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = [block for block in BLOCKS if "make.py" in block]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", example],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 200 rows with both labels") == 2
    assert re.search(r"^better than before on held-out rows", done.stdout, re.M)
    # What is measured was kept apart from what was fitted.
    assert "fitted to" not in done.stdout
    # The refit has learnt which two of the five requests are hard.
    apgr = re.findall(r"^router +([\d.]+) \[([\d.]+), ([\d.]+)\]", done.stdout, re.M)
    assert len(apgr) == 2
    assert float(apgr[1][1]) > 0.5
    assert (tmp_path / "company" / "manifest.json").is_file()
