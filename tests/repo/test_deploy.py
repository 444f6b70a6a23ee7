"""Example configurations load, and what they promise of residency holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backends.http import UpstreamTransport
from gateway.auth import check_config_keys, new_key
from gateway.compose import build_catalog
from gateway.config import load_config
from gateway.doubts import doubts
from routers.decide import ActivePolicy, filter_candidates
from routers.types import Need

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "deploy" / "examples").glob("*.toml"))


def environment(text: str) -> dict[str, str]:
    names = re.findall(r"\$\{([A-Z_0-9]+)", text)
    return {n: new_key() if "_KEY" in n and "API" not in n else "x" * 32 for n in names}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_it_loads(path: Path) -> None:
    config = load_config(path, environment(path.read_text()))
    check_config_keys(config)
    assert config.backends


def test_the_hospital_keeps_patients_in_its_cellar() -> None:
    path = ROOT / "deploy" / "examples" / "hospital.toml"
    config = load_config(path, environment(path.read_text()))
    catalog = build_catalog(config, {}, UpstreamTransport())
    active = ActivePolicy("default", 1, config.policies["default"])
    need = Need(labels=frozenset({"phi"}), capabilities=frozenset({"chat"}))
    found = filter_candidates(active, need, catalog.candidates(need))
    assert {c.backend for c in found.eligible} == {"ward"}
    assert {r.filter for r in found.rejected} == {"residency"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_nothing_in_it_is_doubtful(path: Path) -> None:
    assert doubts(load_config(path, environment(path.read_text()))) == []


def test_the_office_of_the_hospital_may_use_the_frontier() -> None:
    path = ROOT / "deploy" / "examples" / "hospital.toml"
    config = load_config(path, environment(path.read_text()))
    catalog = build_catalog(config, {}, UpstreamTransport())
    active = ActivePolicy("default", 1, config.policies["default"])
    (scope,) = config.scopes
    office = next(key for key in config.keys if key.team == "office")
    labels = frozenset((*scope.labels, *office.labels))
    need = Need(labels=labels, capabilities=frozenset({"chat"}))
    found = filter_candidates(active, need, catalog.candidates(need))
    assert {c.backend for c in found.eligible} == {"ward", "anthropic"}


def test_the_containers_wait_for_each_other_and_may_write() -> None:
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    assert "condition: service_healthy" in compose and "pg_isready" in compose
    image = (ROOT / "deploy" / "Dockerfile").read_text()
    data = re.search(r"- data:(\S+)", compose)
    assert data is not None
    assert f"install --directory --owner tollhouse --group tollhouse {data[1]}" in image


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
