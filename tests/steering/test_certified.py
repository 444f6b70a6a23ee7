"""A violation rate is called certified where the calibration rows speak of the gains in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from backends.http import UpstreamTransport
from gateway.catalog import Catalog
from gateway.compose import build_catalog
from gateway.config import parse_config
from gateway.config.model import TelemetryConfig
from gateway.exchange import Exchange
from gateway.learning import RouterSlot
from gateway.policies import Policies
from gateway.steering import Parts, Steering
from gateway.store import Store
from gateway.telemetry import Telemetry, names
from gateway.telemetry.core import Rows
from gateway.telemetry.names import Metric
from routers.base import FixedRouter
from routers.cards import Card, apply_cards
from routers.decide import ActivePolicy, filter_candidates
from routers.steering import Calibration, SteeringView
from routers.types import Need, Policy, Score, Target

CONFIG = """
[router]
artefact = "heuristic"
"""
BACKEND = """
[backends.{tier}]
provider = "vllm"
base_url = "http://127.0.0.1:9/v1"
tier = "{tier}"
models = {{ first = {{ input = 0.0, output = 0.0 }}, second = {{ input = 0.0, output = 0.0 }} }}
"""
TIERS = ("local", "frontier", "lab")
SURE = ActivePolicy("sure", 1, Policy(target=Target(violation=0.1)))


class Labelled(FixedRouter):
    """A router with calibration rows."""

    def __init__(self, rows: Calibration) -> None:
        super().__init__(Score())
        self.calibration = rows


@pytest.fixture
def catalog() -> Catalog:
    text = CONFIG + "".join(BACKEND.format(tier=tier) for tier in TIERS)
    return build_catalog(parse_config(text, {}), {}, UpstreamTransport())


@pytest.fixture
def steering(catalog: Catalog, drawn: Callable[..., Calibration]) -> Steering:
    policies = cast(Policies, SimpleNamespace(active=lambda: [SURE]))
    slot = RouterSlot(Labelled(drawn(2000, Random(1))))
    telemetry = Telemetry(TelemetryConfig(), "one")
    return Steering(
        Parts(policies, slot, cast(Store, None), telemetry, catalog.carded), lambda: 0.0
    )


def shown(steering: Steering) -> SteeringView:
    (view,) = steering.view().policies
    return view


def metric(steering: Steering) -> Rows:
    """What a scrape reads."""
    read: dict[Metric, Callable[[], Rows]] = {}
    steering.gauges(cast(Telemetry, SimpleNamespace(gauge=read.__setitem__)))
    return read[names.STEERING_CERTIFIED]()


def tier(steering: Steering, catalog: Catalog, p_local: float) -> str:
    """Where a request goes that the frontier answers well in any case."""
    need = Need(capabilities=frozenset(("chat",)))
    found = SimpleNamespace(
        filtered=filter_candidates(SURE, need, catalog.candidates(need)),
        score=apply_cards(Score(p_local_ok=p_local, p_frontier_ok=0.95), catalog.cards),
        active=SURE,
        principal=SimpleNamespace(key_id="k"),
        decision=None,
    )
    steering.decide(cast(Exchange, found), count=False)
    assert found.decision is not None
    return str(found.decision.plan[0].tier)


@pytest.mark.parametrize(
    ("target", "card"),
    [
        ("local/first", Card(offset=-0.5)),
        ("local/second", Card(slope=0.9)),
        ("frontier/first", Card(base="frontier", domain={"law": 0.2})),
        ("frontier/first", Card(base="local", offset=6.0)),
    ],
)
def test_a_card_that_moves_gains_takes_the_certificate_and_not_the_threshold(
    steering: Steering, catalog: Catalog, target: str, card: Card
) -> None:
    plain = shown(steering)
    assert plain.certified and plain.uncertified == "" and 0 < plain.threshold < 1
    catalog.use_cards({target: card})
    found = shown(steering)
    assert not found.certified
    assert found.uncertified == f"the model card of {target} moves gains"
    assert found.threshold == plain.threshold
    assert metric(steering) == [(("sure",), 0.0)]
    assert tier(steering, catalog, 0.94) == "local"
    assert tier(steering, catalog, 0.05) == "frontier"
    # Another artefact may bring other cards.
    catalog.use_cards({})
    assert shown(steering).certified
    assert metric(steering) == [(("sure",), 1.0)]


def test_a_card_that_moves_nothing_keeps_the_certificate(
    steering: Steering, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    """So does one of a tier that the policy does not choose."""
    catalog.use_cards(
        {
            "local/first": Card(origin="configured"),
            "frontier/first": Card(base="frontier", domain={"law": 0.0}),
            "lab/first": Card(offset=2.0),
        }
    )
    assert shown(steering).certified
    assert not caplog.records


def test_the_log_says_once_why_a_rate_is_not_certified(
    steering: Steering, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    catalog.use_cards({"local/first": Card(offset=-0.5)})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tier(steering, catalog, 0.5)
    assert [record.getMessage() for record in caplog.records] == [
        "violation 0.1 of policy sure is not certified: the model card of local/first moves gains"
    ]
