"""What the documentation says exists, exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gateway.cli.parser import build_parser
from gateway.config import schema
from gateway.errors import GatewayError

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_test_that_the_readme_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/.-]+?)(?:::(\w+))?`", README)
    assert len(named) >= 8
    for path, function in named:
        file = ROOT / path
        assert file.exists(), path
        if function:
            assert f"def {function}" in file.read_text(), function


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist(page: Path) -> None:
    known = build_parser().format_help()
    text = page.read_text()
    blocks = " \n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S))
    for command in re.findall(r"^(?:\$ )?tollhouse ([a-z]+)", blocks, re.M):
        assert re.search(rf"\b{command}\b", known), command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_variables_of_the_commands_are_set_before(page: Path) -> None:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.S)
    known: set[str] = set()
    for block in blocks:
        for line in block.splitlines():
            if line.startswith("export "):
                known |= set(re.findall(r"\b([A-Z_]+)=", line))
            used = set(re.findall(r"\$\{?([A-Za-z_]+)", line))
            assert used <= known, line


def test_configuration_reference_names_every_section() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for section in schema()["$defs"]["Config"]["properties"]:
        assert f"`{section}`" in text or f"[{section}" in text, section


def test_every_error_has_four_keys() -> None:
    import msgspec

    body = msgspec.json.decode(GatewayError(400, None, "m").body())
    assert body == {
        "error": {
            "message": "m",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }


def test_the_lock_has_hashes() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    files = [f for p in lock["package"] for f in (p.get("wheels") or []) + [p.get("sdist")] if f]
    assert len(files) > 100
    assert all(f["hash"].startswith("sha256:") for f in files)
