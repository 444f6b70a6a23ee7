from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backends.base import Usage
from gateway.telemetry import AttemptFacts, RequestFacts, merge, names
from gateway.telemetry.aggregate import Histogram, counters

ATTEMPT = AttemptFacts(
    "chat",
    "openai",
    "openai",
    "gpt-x",
    0.3,
    first_chunk=0.05,
    usage=Usage(prompt=10, completion=5),
    cost=2_500_000,
    tier="frontier",
)
REQUEST = RequestFacts(
    "chat",
    200,
    0.31,
    0.0004,
    tier="frontier",
    backend="openai",
    model="gpt-x",
    reason="score_above",
    cache="miss",
    first_token=0.06,
    output_tokens=6,
    score=0.002,
)
CALL = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-x",
    "tollhouse_backend": "openai",
}


def key(name, **labels):
    return (name, tuple(sorted(labels.items())))


def test_an_attempt_and_a_request_are_counted(make, parse):
    telemetry = make()
    telemetry.attempt(ATTEMPT)
    telemetry.attempt(ATTEMPT)
    telemetry.request(REQUEST)
    seen = parse(telemetry.exposition())
    duration = "gen_ai_client_operation_duration_seconds"
    ok = {**CALL, "error_type": ""}
    assert seen[key(f"{duration}_count", **ok)] == 2
    assert seen[key(f"{duration}_sum", **ok)] == pytest.approx(0.6)
    assert seen[key(f"{duration}_bucket", **ok, le="0.16")] == 0
    assert seen[key(f"{duration}_bucket", **ok, le="0.32")] == 2
    assert seen[key("gen_ai_client_token_usage_sum", **CALL, gen_ai_token_type="input")] == 20
    assert seen[key("gen_ai_client_token_usage_sum", **CALL, gen_ai_token_type="output")] == 10
    place = {"tollhouse_backend": "openai", "gen_ai_request_model": "gpt-x"}
    cost = key("tollhouse_cost_usd_total", **place, tollhouse_tier="frontier")
    assert seen[cost] == pytest.approx(0.005)
    counted = {
        "tollhouse_tier": "frontier",
        "tollhouse_reason": "score_above",
        "tollhouse_cache": "miss",
        "tollhouse_status": "2xx",
    }
    assert seen[key("tollhouse_requests_total", **counted)] == 1
    gate = {"tollhouse_tier": "frontier", "tollhouse_cache": "miss"}
    assert seen[key("tollhouse_overhead_seconds_bucket", **gate, le="0.0003")] == 0
    assert seen[key("tollhouse_overhead_seconds_bucket", **gate, le="0.0005")] == 1
    served = {
        "gen_ai_operation_name": "chat",
        "gen_ai_request_model": "gpt-x",
        "tollhouse_tier": "frontier",
    }
    per_token = "gen_ai_server_time_per_output_token_seconds_sum"
    assert seen[key(per_token, **served)] == pytest.approx(0.05)


def test_a_failed_attempt_names_its_error_and_books_its_cost(make, parse):
    telemetry = make()
    failed = AttemptFacts(
        "chat", "openai", "openai", "gpt-x", 1.5, error="upstream_timeout", cost=7
    )
    telemetry.attempt(failed)
    seen = parse(telemetry.exposition())
    errors = {"tollhouse_backend": "openai", "error_type": "upstream_timeout"}
    assert seen[key("tollhouse_upstream_errors_total", **errors)] == 1
    duration = "gen_ai_client_operation_duration_seconds_count"
    assert seen[key(duration, **CALL, error_type="upstream_timeout")] == 1
    assert seen[key(duration, **CALL, error_type="")] == 0


def test_a_refusal_has_a_reason_and_no_tier(make, parse):
    telemetry = make()
    telemetry.request(RequestFacts("chat", 402, 0.001, 0.001, reason="budget", refused="budget"))
    seen = parse(telemetry.exposition())
    assert seen[key("tollhouse_refused_total", tollhouse_reason="budget")] == 1


def test_the_newer_spelling_replaces_the_older_one(make, parse):
    telemetry = make(environ={names.OPT_IN: f"http,{names.OPT_IN_LATEST}"})
    telemetry.attempt(ATTEMPT)
    seen = parse(telemetry.exposition())
    used = "gen_ai_client_inference_usage_input_tokens_total"
    assert seen[key(used, **CALL, gen_ai_token_modality="unknown")] == 10
    assert key("gen_ai_client_inference_duration_seconds_count", **CALL, error_type="") in seen
    assert key("gen_ai_client_inference_operation_output_tokens_sum", **CALL) in seen
    assert not any(name.startswith("gen_ai_client_operation") for name, _ in seen)
    assert not any(name.startswith("gen_ai_client_token_usage") for name, _ in seen)


@pytest.mark.parametrize("spelling", [names.V1_41, names.LATEST])
def test_everything_emitted_is_a_listed_name(make, parse, spelling):
    latest = spelling is names.LATEST
    telemetry = make(environ={names.OPT_IN: names.OPT_IN_LATEST} if latest else {})
    telemetry.attempt(ATTEMPT)
    telemetry.attempt(AttemptFacts("chat", "openai", "openai", "gpt-x", 1.0, error="e"))
    telemetry.request(REQUEST)
    telemetry.request(RequestFacts("chat", 403, 0.1, 0.1, refused="residency"))
    for counter in names.COUNTERS:
        telemetry.count(counter, *("x" for _ in counter.labels))
    for gauge in names.GAUGES:
        telemetry.gauge(gauge, lambda gauge=gauge: [(("x",) * len(gauge.labels), 1.0)])
    emitted = {name for name, _ in parse(telemetry.exposition())}
    assert emitted == names.sample_names(spelling)


def test_unknown_models_and_floods_of_labels_stay_bounded(make, parse):
    telemetry = make()
    for number in range(3000):
        telemetry.attempt(AttemptFacts("chat", "p", "secret@example.com", f"m{number}", 0.1))
        telemetry.request(RequestFacts("chat", 200, 0.1, 0.1, backend="b", model=f"m{number}"))
        telemetry.request(RequestFacts("chat", 400, 0.1, 0.1, reason=f"r{number}"))
    text = telemetry.exposition()
    assert b"secret@" not in text
    assert b"m2999" not in text
    seen = parse(text)
    other = dict.fromkeys(CALL, "_other") | {"gen_ai_operation_name": "chat", "error_type": ""}
    assert seen[key("gen_ai_client_operation_duration_seconds_count", **other)] == 3000
    requests = {k: v for k, v in seen.items() if k[0] == "tollhouse_requests_total"}
    assert len(requests) <= 1001
    assert sum(requests.values()) == 6000


def test_a_reload_keeps_what_was_counted(make, parse):
    telemetry = make()
    telemetry.attempt(ATTEMPT)
    telemetry.models([("openai", "gpt-x"), ("new", "model")])
    telemetry.attempt(ATTEMPT)
    seen = parse(telemetry.exposition())
    count = key("gen_ai_client_operation_duration_seconds_count", **CALL, error_type="")
    assert seen[count] == 2


def test_gauges_are_read_at_exposition_and_a_broken_one_is_left_out(make, parse, caplog):
    telemetry = make()
    now = [3]
    telemetry.gauge(names.IN_FLIGHT, lambda: now[0])
    telemetry.gauge(names.BACKEND_UP, lambda: [(("openai",), 0), (("llama",), 1)])
    telemetry.gauge(names.OUTBOX_LAG, lambda: 1 // 0)
    assert parse(telemetry.exposition())[key("tollhouse_in_flight")] == 3
    now[0] = 4
    seen = parse(telemetry.exposition())
    assert seen[key("tollhouse_in_flight")] == 4
    assert seen[key("tollhouse_backend_up", tollhouse_backend="openai")] == 0
    assert seen[key("tollhouse_backend_up", tollhouse_backend="llama")] == 1
    assert not any(name == "tollhouse_outbox_lag" for name, _ in seen)
    assert "tollhouse.outbox.lag" in caplog.text


def test_two_workers_merge_under_one_head(make, parse):
    first, second = make("1"), make("2")
    first.attempt(ATTEMPT)
    for _ in range(2):
        second.attempt(ATTEMPT)
        second.request(REQUEST)
    first.gauge(names.IN_FLIGHT, lambda: 5)
    text = merge({"1": first.exposition(), "2": second.exposition()})
    seen = parse(text)
    count = "gen_ai_client_operation_duration_seconds_count"
    assert seen[key(count, **CALL, error_type="", worker="1")] == 1
    assert seen[key(count, **CALL, error_type="", worker="2")] == 2
    assert seen[key("tollhouse_in_flight", worker="1")] == 5
    heads = [line for line in text.decode().splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads))
    families = [family.name for family in text_string_to_metric_families(text.decode())]
    assert len(families) == len(set(families))


def test_no_worker_no_text(make):
    assert make().exposition() == b""
    assert merge({}) == b""
    assert merge({"1": b""}) == b""


@given(st.lists(st.floats(0, 200, allow_nan=False), max_size=50))
def test_a_histogram_counts_every_value_in_its_bucket(values):
    histogram = Histogram(names.SECONDS)
    for value in values:
        histogram.record(value)
    assert sum(histogram.counts) == len(values)
    for number, bound in enumerate(names.SECONDS):
        assert sum(histogram.counts[: number + 1]) == sum(value <= bound for value in values)


@given(st.text(), st.text())
def test_labels_of_any_text_survive_writing_and_reading(make, parse, reason, worker):
    telemetry = make()
    telemetry.request(RequestFacts("chat", 429, 0.1, 0.1, refused=f"x{reason}"))
    reason = f"x{reason}"
    seen = parse(merge({worker: telemetry.exposition()}))
    assert seen[key("tollhouse_refused_total", tollhouse_reason=reason, worker=worker)] == 1


def test_a_family_shares_one_series_past_its_limit():
    family = counters(names.REFUSED, limit=2)
    for reason in ("a", "b", "c", "d"):
        family.at(reason).value += 1
    assert {labels: series.value for labels, series in family.series.items()} == {
        ("a",): 1,
        ("b",): 1,
        ("_other",): 2,
    }


async def test_snapshots_are_published_and_a_failing_store_does_not_end_it(make, caplog):
    telemetry = make()
    telemetry.attempt(ATTEMPT)
    calls: list[bytes] = []
    done = asyncio.Event()

    async def publish(text: bytes) -> None:
        calls.append(text)
        if len(calls) == 1:
            raise ConnectionError("the store is gone")
        done.set()

    await telemetry.start(publish, every=0.001)
    await asyncio.wait_for(done.wait(), 5)
    await telemetry.shutdown()
    assert b"gen_ai_client_operation_duration_seconds" in calls[1]
    assert "not published" in caplog.text
    after = len(calls)
    await asyncio.sleep(0.01)
    assert len(calls) == after
