"""What the router's model finds becomes a label at admission, beside what the patterns find."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gateway.auth import Principal
from gateway.compose import Resolved, compose
from gateway.config import ConfigError
from gateway.config.load import parse_config
from gateway.explain import explain_request
from routers.base import FixedRouter
from routers.types import Score

CONFIG = """
[router]
artefact = "none"
[policies.default]
{more}
[policies.default.labels.pii]
tiers = ["local"]
[policies.default.labels.phi]
tiers = ["local"]
[policies.patterns]
detect_by = "patterns"
[policies.patterns.labels.pii]
[policies.patterns.labels.phi]
"""
IBAN = "Pay to DE89 3704 0044 0532 0130 00 please."


class Finding(FixedRouter):
    """Finds `found` in every text, and remembers on which threads it was asked."""

    def __init__(self, *found: str) -> None:
        super().__init__(Score(p_local_ok=0.5, p_frontier_ok=0.6))
        self._found = frozenset(found)
        self.threads: list[int] = []

    def detect(self, text: str) -> frozenset[str]:
        self.threads.append(threading.get_ident())
        return self._found


async def explained(
    router: FixedRouter, text: str, *, more: str = "", policy: str = ""
) -> dict[str, Any]:
    if "detect_by" not in more:
        more = f'{more}\ndetect_by = "both"'
    runtime = compose(Resolved(config=parse_config(CONFIG.format(more=more)), worker="t")).runtime
    await runtime.router.swap(router)
    request = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    try:
        found = await explain_request(runtime, request, Principal(), policy=policy)
        return {**found, "labels": list(found["labels"])}
    finally:
        await runtime.catalog.aclose()
        await runtime.router.aclose()


async def test_what_the_model_finds_is_a_label_and_the_explanation_says_who_found_it() -> None:
    found = await explained(Finding("phi"), IBAN)
    assert found["labels"] == ["phi", "pii"]
    assert found["kinds"] == ["iban", "model:phi"]


async def test_both_may_find_the_same() -> None:
    found = await explained(Finding("pii"), IBAN)
    assert found["labels"] == ["pii"]
    assert found["kinds"] == ["iban", "model:pii"]


async def test_without_a_model_the_patterns_still_look() -> None:
    found = await explained(Finding(), IBAN)
    assert (found["labels"], found["kinds"]) == (["pii"], ["iban"])


async def test_the_model_looks_only_for_what_the_policy_asks() -> None:
    found = await explained(Finding("pii", "phi"), "Hello", more='detect = ["phi"]')
    assert found["labels"] == ["phi"]
    router = Finding("pii")
    found = await explained(router, "Hello", more="detect = []")
    assert (found["labels"], router.threads) == ([], [])


async def test_patterns_alone_leave_the_model_out() -> None:
    router = Finding("phi")
    found = await explained(router, IBAN, more='detect_by = "patterns"')
    assert (found["labels"], found["kinds"], router.threads) == (["pii"], ["iban"], [])


async def test_a_named_policy_does_not_take_the_models_findings_away() -> None:
    found = await explained(Finding("phi"), "Hello", policy="patterns")
    assert found["labels"] == ["phi"]


@pytest.mark.parametrize(("size", "here"), [(100, True), (100_000, False)])
async def test_long_texts_are_read_off_the_event_loop(size: int, here: bool) -> None:
    router = Finding()
    await explained(router, "a " * (size // 2))
    assert {thread == threading.get_ident() for thread in router.threads} == {here}


def test_an_unknown_way_to_detect_is_named() -> None:
    with pytest.raises(ConfigError, match="detect_by"):
        parse_config(CONFIG.format(more='detect_by = "guess"'))
