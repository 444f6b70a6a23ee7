"""Promises in a running gateway: what decides, what is counted, and what the operator sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.auth import new_key
from tests.support import Gateway, Upstream, config_for

POLICIES = """
allow = []
[[keys]]
key = "${HOSTILE}"

[policy]
default = "half"
[policies.half]
target = { share = 0.5 }
cache_ttl = 0
detect = []
fallback = false
[policies.capped]
threshold = -1.0
key_share = 0.0
cache_ttl = 0
detect = []
[policies.cheap]
target = { cost = 5.0 }
threshold = -1.0
cache_ttl = 0
detect = []
[policies.sure]
target = { violation = 0.05 }
threshold = 0.9
cache_ttl = 0
detect = []
"""


def ask(client: httpx.Client, number: int, policy: str = "half") -> httpx.Response:
    text = f"Question {number}: " + "prove that the integral converges, " * (number % 17)
    reply = client.post(
        "/v1/chat/completions",
        headers={"x-tollhouse-policy": policy},
        json={"model": "auto", "max_tokens": 8, "messages": [{"role": "user", "content": text}]},
    )
    assert reply.status_code == 200, reply.text
    return reply


def tiers(client: httpx.Client, number: int, policy: str) -> list[str]:
    return [ask(client, at, policy).headers["x-tollhouse-tier"] for at in range(number)]


def records(admin: httpx.Client, policy: str, number: int) -> list[dict[str, Any]]:
    """The decisions filed under a policy. They are filed behind the answers."""
    deadline = time.monotonic() + 30
    while True:
        found = admin.get("/decisions?limit=500").raise_for_status().json()["items"]
        mine = [one for one in found if one["policy"] == policy]
        if len(mine) >= number or time.monotonic() > deadline:
            return mine
        time.sleep(0.2)


def states(admin: httpx.Client) -> dict[str, dict[str, Any]]:
    (worker,) = admin.get("/routing").raise_for_status().json()["workers"]
    return {state["policy"]: state for state in worker["policies"]}


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("steered")
    keys = {"main": new_key(), "hostile": new_key()}
    server = Gateway(folder, config_for(upstream.url, extra=POLICIES), keys=keys)
    yield server
    server.stop()


def test_a_share_is_kept_and_shown(steered: Gateway) -> None:
    with steered.client() as client, steered.admin() as admin:
        seen = tiers(client, 200, "half")
        found = states(admin)["half"]
        metrics = client.get("/metrics").text
        record = records(admin, "half", 1)[0]
    assert 0.42 <= seen.count("frontier") / 200 <= 0.58
    assert found["target"] == "share 0.5"
    assert found["realised"]["requests"] == 200
    assert found["realised"]["share"] == seen.count("frontier") / 200
    assert 0.8 < found["realised"]["quality"] < 1
    assert 'tollhouse_steering_share{worker="' in metrics
    assert f'tollhouse_policy="half"}} {found["realised"]["share"]}' in metrics
    assert 'tollhouse_policy="half",tollhouse_signal="share"} 0.5' in metrics
    assert record["target"] == "share 0.5"
    assert record["gain"] == pytest.approx(record["p_frontier_ok"] - record["p_local_ok"])


def test_an_explanation_shows_the_threshold_in_force_and_counts_nothing(steered: Gateway) -> None:
    request = {"model": "auto", "messages": [{"role": "user", "content": "Prove it. " * 40}]}
    with steered.client() as client, steered.admin() as admin:
        tiers(client, 30, "half")
        before = states(admin)["half"]
        for _ in range(50):
            found = admin.post("/explain", json={"request": request, "policy": "half"}).json()
        assert states(admin)["half"] == before
    assert found["threshold"] == pytest.approx(before["threshold"], abs=1e-6)
    assert found["target"] == "share 0.5"
    assert "which follows share 0.5" in found["text"]


def test_a_key_past_its_share_is_turned_to_the_weak_tier(steered: Gateway) -> None:
    hostile = steered.keys["hostile"]
    with steered.client(hostile) as client, steered.client() as other, steered.admin() as admin:
        seen = tiers(client, 30, "capped")
        unharmed = tiers(other, 5, "capped")
        found = states(admin)["capped"]
        filed = records(admin, "capped", 35)
        metrics = client.get("/metrics").text
    assert seen == ["frontier"] * 20 + ["local"] * 10
    assert unharmed == ["frontier"] * 5
    assert found["key_capped"] == 10 and found["keys"] == 2
    assert sum(one["reason"] == "key_share" for one in filed) == 10
    assert 'tollhouse_policy="capped"} 10' in metrics.split("key_capped_total", 2)[2]


def test_settled_costs_steer_a_cost(steered: Gateway) -> None:
    with steered.client() as client, steered.admin() as admin:
        replies = [ask(client, at, "cheap") for at in range(400)]
        found = states(admin)["cheap"]["realised"]
    paid = sum(float(reply.headers["x-tollhouse-cost-usd"]) for reply in replies)
    assert found["usd_per_1000"] == pytest.approx(paid / 400 * 1000, rel=0.01)


def test_a_violation_rate_without_calibration_rows_is_flagged(steered: Gateway) -> None:
    with steered.client() as client, steered.admin() as admin:
        assert set(tiers(client, 10, "sure")) == {"frontier"}
        assert states(admin)["sure"]["certified"] is False
        metrics = client.get("/metrics").text
    assert 'tollhouse_policy="sure"} 0' in metrics.split("steering_certified", 2)[2]


def test_a_restarted_worker_goes_on(upstream: Upstream, serve: Callable[..., Gateway]) -> None:
    """The second gateway has the first one's data directory, and so its store."""
    keys = {"main": new_key(), "hostile": new_key()}
    first = serve(config_for(upstream.url, extra=POLICIES), keys=keys)
    with first.client() as client, first.admin() as admin:
        tiers(client, 120, "half")
        before = states(admin)["half"]
    assert first.stop() == 0
    config = config_for(upstream.url, extra=POLICIES)
    moved = config.replace('data_dir = "data"', f'data_dir = "{first.folder / "data"}"')
    second = serve(moved, keys=keys)
    with second.admin() as admin:
        after = states(admin)["half"]
    assert before["threshold"] != 0.1
    assert after["threshold"] == before["threshold"]
    assert after["balance"] == before["balance"]
    assert after["realised"]["requests"] == 0


def test_every_worker_is_shown(upstream: Upstream, serve: Callable[..., Gateway]) -> None:
    keys = {"main": new_key(), "hostile": new_key()}
    server = serve(config_for(upstream.url, extra=POLICIES), keys=keys, workers=2)
    deadline = time.monotonic() + 60
    workers: list[dict[str, Any]] = []
    with server.admin() as admin:
        while len(workers) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
            workers = admin.get("/routing").raise_for_status().json()["workers"]
    assert len({worker["worker"] for worker in workers}) == 2
    assert all(worker["model"] == "heuristic" for worker in workers)
