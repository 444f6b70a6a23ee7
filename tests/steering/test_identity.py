"""Steering belongs to one model: another one may have its name and version."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import httpx
import msgspec
import pytest

from gateway.config.model import TelemetryConfig
from gateway.learning import RouterSlot
from gateway.policies import Policies
from gateway.steering import Parts, Steering
from gateway.store import Store
from gateway.telemetry import Telemetry
from routers.base import FixedRouter, identity
from routers.decide import ActivePolicy
from routers.onnx.manifest import describe_file, read_manifest, write_manifest
from routers.onnx.router import DEFAULT_ARTEFACT, OnnxRouter
from routers.steering import Calibration, PolicySteering
from routers.steering.calibration import FILE, dump_calibration
from routers.types import Policy, Score, Target
from tests.support import Gateway, Upstream, config_for

SURE = ActivePolicy("sure", 1, Policy(target=Target(violation=0.1)))
HALF = """
[policy]
default = "half"
[policies.half]
target = { share = 0.5 }
cache_ttl = 0
detect = []
fallback = false
"""


def refit_of(folder: Path, rows: Calibration) -> None:
    """The shipped artefact with these calibration rows, in place of what is there."""
    shutil.copytree(DEFAULT_ARTEFACT, folder, dirs_exist_ok=True)
    (folder / FILE).write_bytes(dump_calibration(rows))
    manifest = read_manifest(folder)
    files = {**manifest.files, FILE: describe_file(folder / FILE)}
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))


@pytest.fixture
def rows(drawn: Callable[..., Calibration]) -> tuple[Calibration, Calibration]:
    """Of two models that disagree."""
    first = drawn(2000, Random(1))
    moved = {
        "gain": tuple(g / 2 for g in first.gain),
        "p_local": tuple(f - g / 2 for f, g in zip(first.p_frontier, first.gain, strict=True)),
    }
    return first, msgspec.structs.replace(first, **moved)


async def test_a_refit_that_reuses_a_name_is_another_model(
    tmp_path: Path, rows: tuple[Calibration, Calibration]
) -> None:
    for name, each in zip(("first", "second"), rows, strict=True):
        refit_of(tmp_path / name, each)
    first, second, again = (
        OnnxRouter.load(tmp_path / name, gpu=False) for name in ("first", "second", "first")
    )
    assert first.name == second.name
    assert identity(first) == identity(again) != identity(second)
    assert identity(FixedRouter(Score())) == "fixed"

    policies = cast(Policies, SimpleNamespace(active=lambda: [SURE]))
    slot = RouterSlot(first)
    steering = Steering(
        Parts(policies, slot, cast(Store, None), Telemetry(TelemetryConfig(), "one"), lambda _: ""),
        lambda: 0.0,
    )
    for router, each in ((first, rows[0]), (second, rows[1])):
        if slot.router is not router:
            await slot.swap(router)
        (view,) = steering.view().policies
        expected = PolicySteering("sure", SURE.policy, each, "m").threshold
        assert view.threshold == pytest.approx(expected, abs=1e-6)
        assert steering.view().model == first.name
    await slot.aclose()
    await again.aclose()


def shown(gateway: Gateway) -> tuple[str, dict[str, float]]:
    with gateway.admin() as admin:
        (worker,) = admin.get("/routing").raise_for_status().json()["workers"]
    (state,) = (one for one in worker["policies"] if one["policy"] == "half")
    return worker["model"], state


def ask(client: httpx.Client, number: int) -> None:
    text = f"Question {number}: " + "prove that the integral converges, " * (number % 17)
    body = {"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": text}]}
    client.post("/v1/chat/completions", json=body).raise_for_status()


def test_a_restart_takes_nothing_over_from_another_model_of_that_name(
    tmp_path: Path,
    upstream: Upstream,
    serve: Callable[..., Gateway],
    rows: tuple[Calibration, Calibration],
) -> None:
    folder = tmp_path / "company"
    text = config_for(upstream.url, extra=HALF)
    text = text.replace('artefact = "heuristic"', f'artefact = "{folder}"')
    refit_of(folder, rows[0])
    first = serve(text)
    with first.client() as client:
        for number in range(60):
            ask(client, number)
    model, before = shown(first)
    assert first.stop() == 0
    text = text.replace('data_dir = "data"', f'data_dir = "{first.folder / "data"}"')
    same = serve(text, keys=first.keys)
    assert shown(same) == (model, {**before, "realised": shown(same)[1]["realised"]})
    assert same.stop() == 0
    refit_of(folder, rows[1])
    other = serve(text, keys=first.keys)
    name, after = shown(other)
    fresh = PolicySteering("half", Policy(target=Target(share=0.5)), rows[1], "m")
    assert name == model
    assert after["threshold"] == pytest.approx(fresh.threshold, abs=1e-6)
    assert after["balance"] == 0 != before["balance"]
