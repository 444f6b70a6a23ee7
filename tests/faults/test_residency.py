"""The residency guarantee as a property: over random policies, labels, models and failures, no
labelled request reaches an upstream that its labels do not allow, and every refusal says why.

One upstream process stands for each place; what reached it is read from its own log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat
from tests.support import Upstream

SEED = 20
REQUESTS = 400
AT_ONCE = 16
LABELS = ("eu", "de", "us", "phi", "zone", "pii")
UNKNOWN = "never-heard-of"
IBAN = "Please pay to DE89 3704 0044 0532 0130 00."
QUICK = "connect = 1.0, first_token = 0.4, idle = 0.4, total = 3.0"
HEALTHY = "tokens=3,chunk=1ms"
FAULTS = (
    "status=503",
    "status=429,retry_after=9",
    "reset",
    "cut=0,tokens=4",
    "hang",
    "redirect",
    "context",
    "html",
    "error200",
)
ALLOWED = {"phi_key": ("phi",), "eu_key": ("eu",), "free_key": ()}


@dataclass(frozen=True)
class Place:
    """Where an upstream stands, as its backends state it."""

    jurisdiction: str
    tier: str


PLACES = {
    "home": Place("on-premises", "local"),
    "berlin": Place("de", "local"),
    "paris": Place("fr", "frontier"),
    "ohio": Place("us", "frontier"),
    "nowhere": Place("", "frontier"),
}


@dataclass(frozen=True)
class Rule:
    jurisdictions: tuple[str, ...]
    tiers: tuple[str, ...]

    def admits(self, place: Place) -> bool:
        if self.tiers and place.tier not in self.tiers:
            return False
        return not self.jurisdictions or place.jurisdiction in self.jurisdictions


@dataclass(frozen=True)
class Rules:
    """A policy, as this test understands it."""

    name: str
    labels: dict[str, Rule]
    mandatory: tuple[str, ...]
    detect: bool
    route: str
    fallback: bool

    def admits(self, place: Place, labels: set[str]) -> bool:
        rules = [self.labels.get(label) for label in labels]
        return all(rule is not None and rule.admits(place) for rule in rules)

    def toml(self) -> str:
        lines = [
            f"[policies.{self.name}]",
            f'route = "{self.route}"',
            f"fallback = {str(self.fallback).lower()}",
            f"detect = {['pii'] if self.detect else []}",
            f"mandatory_labels = {list(self.mandatory)}",
        ]
        for label, rule in self.labels.items():
            lines.append(f"[policies.{self.name}.labels.{label}]")
            lines.append(f"tiers = {list(rule.tiers)}")
            if rule.jurisdictions:
                lines.append(f"facts.jurisdiction = {list(rule.jurisdictions)}")
        return "\n".join(lines)


def some(seeded: random.Random, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(seeded.sample(values, seeded.randint(1, len(values)))))


def rules(seeded: random.Random, number: int) -> Rules:
    jurisdictions = tuple(place.jurisdiction for place in PLACES.values() if place.jurisdiction)
    labels = {
        label: Rule(
            some(seeded, jurisdictions) if seeded.random() < 0.7 else (),
            some(seeded, ("local", "frontier")) if seeded.random() < 0.4 else (),
        )
        for label in LABELS
        if seeded.random() < 0.85
    }
    mandatory = tuple(label for label in labels if seeded.random() < 0.1)
    route = seeded.choice(("score", "weak", "strong"))
    detect = seeded.random() < 0.5
    return Rules(f"p{number}", labels, mandatory, detect, route, seeded.random() < 0.7)


SEEDED = random.Random(SEED)
POLICIES = {found.name: found for found in (rules(SEEDED, number) for number in range(12))}


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, Upstream]]:
    started: dict[str, Upstream] = {}
    try:
        for name in PLACES:
            started[name] = Upstream()
        yield started
    finally:
        for upstream in started.values():
            upstream.stop()


@pytest.fixture(scope="module")
def scene(stage: Stage, places: dict[str, Upstream]) -> Scene:
    backends = []
    for name, place in PLACES.items():
        faults = [HEALTHY, *SEEDED.sample(FAULTS, 3)]
        backends += [
            Backend(
                f"{name}-{number}",
                fault,
                url=places[name].url,
                tier=place.tier,
                jurisdiction=place.jurisdiction,
                timeouts=QUICK,
            )
            for number, fault in enumerate(SEEDED.sample(faults, len(faults)))
        ]
    SEEDED.shuffle(backends)
    keys = tuple(
        Key(name, (), None, f"labels = {list(labels)}") for name, labels in ALLOWED.items()
    )
    # What the default policy asks holds for every key that is bound to no other: here, nothing.
    free = "[policies.default]\ndetect = []\n"
    extra = free + "\n".join(policy.toml() for policy in POLICIES.values())
    return stage(tuple(backends), keys, extra=extra, upstreams=places)


@dataclass
class Asked:
    """A request with the labels it carries, and the answer."""

    policy: Rules
    labels: set[str]
    explicit: str | None
    key: str
    body: dict[str, Any]
    requested: str
    status: int = 0
    request_id: str = ""
    text: str = ""

    @property
    def allowed(self) -> set[str]:
        return {name for name, place in PLACES.items() if self.policy.admits(place, self.labels)}


def random_request(scene: Scene, number: int) -> Asked:
    policy = SEEDED.choice(list(POLICIES.values()))
    key = SEEDED.choice(list(ALLOWED))
    requested = [label for label in LABELS if SEEDED.random() < 0.2]
    if SEEDED.random() < 0.05:
        requested.append(UNKNOWN)
    personal = SEEDED.random() < 0.3
    explicit = SEEDED.choice(list(scene.backends)) if SEEDED.random() < 0.3 else None
    body = chat(
        f"{number}. {IBAN if personal else 'Tell me more.'}",
        model=f"{explicit}/m" if explicit else "auto",
        stream=SEEDED.random() < 0.5,
    )
    labels = {*requested, *policy.mandatory, *ALLOWED[key]}
    if personal and policy.detect:
        labels.add("pii")
    return Asked(policy, labels, explicit, key, body, ",".join(requested))


async def ask(scene: Scene, client: httpx.AsyncClient, asked: Asked) -> None:
    headers = {
        "authorization": f"Bearer {scene.gateway.keys[asked.key]}",
        "x-tollhouse-policy": asked.policy.name,
    }
    if asked.requested:
        headers["x-tollhouse-residency"] = asked.requested
    response = await client.post("/v1/chat/completions", json=asked.body, headers=headers)
    asked.status, asked.text = response.status_code, response.text
    asked.request_id = response.headers["x-request-id"]


@pytest.fixture(scope="module")
def everything(scene: Scene) -> list[Asked]:
    """All requests, asked."""
    requests = [random_request(scene, number) for number in range(REQUESTS)]

    async def run() -> None:
        async with scene.gateway.async_client() as client:
            for at in range(0, REQUESTS, AT_ONCE):
                batch = requests[at : at + AT_ONCE]
                await asyncio.gather(*(ask(scene, client, asked) for asked in batch))

    asyncio.run(run())
    return requests


def test_the_cases_are_worth_something(everything: list[Asked]) -> None:
    statuses = {asked.status for asked in everything}
    assert {200, 403, 503} <= statuses
    answered = [asked for asked in everything if asked.status == 200 and asked.labels]
    assert len(answered) > REQUESTS / 20
    assert sum(asked.status == 403 for asked in everything) > REQUESTS / 20


def test_no_labelled_request_reaches_a_place_that_it_must_not(
    scene: Scene, everything: list[Asked]
) -> None:
    by_id = {asked.request_id: asked for asked in everything}
    seen = 0
    for name, upstream in scene.upstreams.items():
        for attempt in upstream.log():
            asked = by_id[attempt["id"]]
            assert name in asked.allowed, (asked, attempt)
            seen += 1
    assert seen > REQUESTS / 4


def test_amplification_is_bounded(scene: Scene, everything: list[Asked]) -> None:
    counts = dict.fromkeys((asked.request_id for asked in everything), 0)
    for upstream in scene.upstreams.values():
        for attempt in upstream.log():
            counts[attempt["id"]] += 1
    assert max(counts.values()) <= 3


def test_every_refusal_names_its_reason(scene: Scene, everything: list[Asked]) -> None:
    for asked in everything:
        if asked.explicit is not None:
            places = {asked.explicit.partition("-")[0]} & asked.allowed
        else:
            places = asked.allowed
        if places:
            assert asked.status != 403, asked
            continue
        assert asked.status == 403, asked
        assert "residency_not_available" in asked.text
        assert any(f"'{label}'" in asked.text for label in asked.labels), asked.text


def test_every_request_left_its_decision(scene: Scene, everything: list[Asked]) -> None:
    for asked in everything:
        decision = scene.decision(asked.request_id)
        assert decision is not None, asked
        assert set(decision["labels"]) == asked.labels
        assert decision["policy"] == asked.policy.name
        assert decision["audit"] == bool(asked.labels)
        for candidate in decision["plan"]:
            assert candidate.partition("-")[0] in asked.allowed
        if asked.status == 403:
            assert decision["refusal"] == "residency_not_available"
            assert decision["plan"] == []
            assert decision["rejected"]
