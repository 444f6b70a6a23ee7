"""The k6 scripts cannot run here: at least they parse, and have what k6 looks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

FOLDER = Path(__file__).resolve().parents[2] / "loadtest" / "k6"
SCRIPTS = sorted(FOLDER.glob("*.js"))
RUNNABLE = [script for script in SCRIPTS if script.name != "common.js"]


def tree(script: Path) -> Node:
    parser = Parser(Language(tree_sitter_javascript.language()))
    return parser.parse(script.read_bytes()).root_node


def walk(node: Node):
    yield node
    for child in node.children:
        yield from walk(child)


def text(node: Node) -> str:
    return node.text.decode()


def exported(root: Node) -> set[str]:
    """The names that a script exports, `default` for its default export."""
    names = set()
    for node in root.children:
        if node.type != "export_statement":
            continue
        if any(child.type == "default" for child in node.children):
            names.add("default")
        declared = node.child_by_field_name("declaration")
        for part in walk(declared) if declared else ():
            if part.type in ("variable_declarator", "function_declaration"):
                name = part.child_by_field_name("name")
                names |= {text(name)} if name else set()
    return names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_syntax_error(script):
    root = tree(script)
    broken = [(n.type, n.start_point) for n in walk(root) if n.is_error or n.is_missing]
    assert not broken
    assert not root.has_error


@pytest.mark.parametrize("script", RUNNABLE, ids=lambda path: path.name)
def test_a_script_exports_what_k6_runs(script):
    names = exported(tree(script))
    assert {"default", "options"} <= names
    assert "thresholds" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_local_import_is_exported_there(script):
    for node in tree(script).children:
        if node.type != "import_statement":
            continue
        source = text(node.child_by_field_name("source")).strip("\"'")
        if not source.startswith("."):
            assert source in ("k6", "k6/http")
            continue
        names = {text(n) for n in walk(node) if n.type == "import_specifier"}
        assert names <= exported(tree(FOLDER / source))


def test_every_scenario_names_an_exported_function():
    root = tree(FOLDER / "mixed.js")
    calls = [n for n in walk(root) if n.type == "call_expression"]
    named = {
        text(call.child_by_field_name("arguments").named_children[0]).strip('"')
        for call in calls
        if text(call.child_by_field_name("function")) == "arrivals"
    }
    assert len(named) == 5
    assert named <= exported(root)


def test_the_checker_sees_an_error(tmp_path):
    broken = tmp_path / "broken.js"
    broken.write_text("export default function () { return {; }")
    assert tree(broken).has_error
