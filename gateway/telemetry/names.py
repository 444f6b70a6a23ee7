"""Every name that telemetry emits: metrics, their labels, span attributes.

GenAI names come in two spellings. The default is the one of OpenTelemetry's semantic conventions
v1.41; `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` chooses the newer
`gen_ai.client.inference.*` names of the GenAI conventions' own repository. Facts of our own are
under `tollhouse.*` in both. On `/metrics` names are spelled as Prometheus wants them: dots become
underscores, units become a suffix, counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Kind = Literal["histogram", "counter", "gauge"]

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
OPT_IN_LATEST = "gen_ai_latest_experimental"

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_SECONDS = tuple(
    n / 1000 for n in (1, 5, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
)
PER_TOKEN_SECONDS = tuple(
    n / 10000 for n in (10, 25, 50, 100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 5000, 10000)
)
OVERHEAD_SECONDS = tuple(
    n / 100_000 for n in (5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000)
)
TOKENS = tuple(float(4**n) for n in range(14))

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_DIRECTION = "gen_ai.token.type"
USAGE_MODALITY = "gen_ai.token.modality"
USAGE_INPUT = "gen_ai.usage.input_tokens"
USAGE_OUTPUT = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

BACKEND = "tollhouse.backend"
TIER = "tollhouse.tier"
REASON = "tollhouse.reason"
CACHE = "tollhouse.cache"
STATUS = "tollhouse.status"
RESIDENCY = "tollhouse.residency"
POLICY = "tollhouse.policy"
POLICY_VERSION = "tollhouse.policy.version"
ATTEMPT = "tollhouse.attempt"
ATTEMPT_COST = "tollhouse.cost.usd"
ESTIMATED = "tollhouse.usage.estimated"
ROUTER_MODEL = "tollhouse.router.model"
ROUTER_DEVICE = "tollhouse.router.device"
ARTEFACT = "tollhouse.router.artefact"
OUTCOME = "tollhouse.outcome"
USABLE = "tollhouse.usable"
SOURCE = "tollhouse.source"
SIDE = "tollhouse.side"
SIGNAL = "tollhouse.signal"


class Metric(msgspec.Struct, frozen=True):
    """One instrument. `unit` follows UCUM as OpenTelemetry writes it; `bounds` are the upper
    bounds of a histogram's buckets in that unit."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """The name on `/metrics`, without `_total`, `_bucket`, `_sum` or `_count`."""
        name = label(self.name)
        suffix = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        return name if name.endswith(suffix) else name + suffix

    @property
    def samples(self) -> tuple[str, ...]:
        """The sample names on `/metrics`."""
        if self.kind == "histogram":
            return (f"{self.family}_bucket", f"{self.family}_sum", f"{self.family}_count")
        return (f"{self.family}_total",) if self.kind == "counter" else (self.family,)


class Names(msgspec.Struct, frozen=True):
    """The metrics that have two spellings, in one of them. `token_usage` is one histogram with
    a token type in the older spelling and None in the newer one, which has a histogram and a
    counter for each direction."""

    duration: Metric
    first_chunk: Metric
    token_usage: Metric | None
    input_tokens: Metric | None
    output_tokens: Metric | None
    input_total: Metric | None
    output_total: Metric | None
    usage_cache_write: str


_CALL = (OPERATION, PROVIDER, REQUEST_MODEL, BACKEND)
_SERVED = (OPERATION, REQUEST_MODEL, TIER)


def _histogram(
    name: str, help: str, unit: str, labels: tuple[str, ...], bounds: tuple[float, ...]
) -> Metric:
    return Metric(name, "histogram", help, unit, labels, bounds)


_DURATION = "How long one call to a model took."
_FIRST_CHUNK = "From the start of a call to a model to its first piece of answer."

V1_41 = Names(
    duration=_histogram(
        "gen_ai.client.operation.duration", _DURATION, "s", (*_CALL, ERROR_TYPE), SECONDS
    ),
    first_chunk=_histogram(
        "gen_ai.client.operation.time_to_first_chunk",
        _FIRST_CHUNK,
        "s",
        _CALL,
        FIRST_TOKEN_SECONDS,
    ),
    token_usage=_histogram(
        "gen_ai.client.token.usage",
        "Tokens of one call to a model.",
        "{token}",
        (*_CALL, USAGE_DIRECTION),
        TOKENS,
    ),
    input_tokens=None,
    output_tokens=None,
    input_total=None,
    output_total=None,
    usage_cache_write="gen_ai.usage.cache_creation.input_tokens",
)

LATEST = Names(
    duration=_histogram(
        "gen_ai.client.inference.duration", _DURATION, "s", (*_CALL, ERROR_TYPE), SECONDS
    ),
    first_chunk=_histogram(
        "gen_ai.client.inference.time_to_first_chunk",
        _FIRST_CHUNK,
        "s",
        _CALL,
        FIRST_TOKEN_SECONDS,
    ),
    token_usage=None,
    input_tokens=_histogram(
        "gen_ai.client.inference.operation.input_tokens",
        "Input tokens of one call to a model.",
        "{token}",
        _CALL,
        TOKENS,
    ),
    output_tokens=_histogram(
        "gen_ai.client.inference.operation.output_tokens",
        "Output tokens of one call to a model.",
        "{token}",
        _CALL,
        TOKENS,
    ),
    input_total=Metric(
        "gen_ai.client.inference.usage.input_tokens",
        "counter",
        "Input tokens used.",
        "{token}",
        (*_CALL, USAGE_MODALITY),
    ),
    output_total=Metric(
        "gen_ai.client.inference.usage.output_tokens",
        "counter",
        "Output tokens used.",
        "{token}",
        (*_CALL, USAGE_MODALITY),
    ),
    usage_cache_write="gen_ai.usage.cache_write.input_tokens",
)

REQUEST_DURATION = _histogram(
    "gen_ai.server.request.duration",
    "From a request's admission to the last byte of its answer.",
    "s",
    _SERVED,
    SECONDS,
)
FIRST_TOKEN = _histogram(
    "gen_ai.server.time_to_first_token",
    "From a request's admission to the first content sent to the client.",
    "s",
    _SERVED,
    FIRST_TOKEN_SECONDS,
)
PER_TOKEN = _histogram(
    "gen_ai.server.time_per_output_token",
    "Time for each output token after the first.",
    "s",
    _SERVED,
    PER_TOKEN_SECONDS,
)
OVERHEAD = _histogram(
    "tollhouse.overhead",
    "Time in the gateway itself: a request's duration less the time its upstreams took.",
    "s",
    (TIER, CACHE),
    OVERHEAD_SECONDS,
)
ROUTER_SECONDS = _histogram(
    "tollhouse.router.duration",
    "Time a request waited for its score, queue included.",
    "s",
    (),
    (*OVERHEAD_SECONDS, 0.1, 0.25),
)
REQUESTS = Metric(
    "tollhouse.requests",
    "counter",
    "Requests by tier, reason of the decision, cache outcome and status class.",
    "{request}",
    (TIER, REASON, CACHE, STATUS),
)
REFUSED = Metric(
    "tollhouse.refused", "counter", "Requests refused, by reason.", "{request}", (REASON,)
)
COST = Metric(
    "tollhouse.cost.usd", "counter", "Settled cost in USD.", "", (BACKEND, REQUEST_MODEL, TIER)
)
ERRORS = Metric(
    "tollhouse.upstream.errors",
    "counter",
    "Failed calls to models, by kind of error.",
    "{error}",
    (BACKEND, ERROR_TYPE),
)

IN_FLIGHT = Metric("tollhouse.in_flight", "gauge", "Requests being served.", "{request}")
BACKEND_UP = Metric(
    "tollhouse.backend.up",
    "gauge",
    "1 while a backend takes requests, 0 while its circuit breaker is open.",
    "",
    (BACKEND,),
)
ROUTER_INFO = Metric(
    "tollhouse.router.info",
    "gauge",
    "1 for the router model that is loaded and the device that really runs it.",
    "",
    (ROUTER_MODEL, ROUTER_DEVICE),
)
OUTBOX_LAG = Metric(
    "tollhouse.outbox.lag",
    "gauge",
    "Entries of the outbox that wait for the database, of all who share the store; told by the "
    "worker that is asked.",
    "{record}",
)
STORE_UP = Metric("tollhouse.store.up", "gauge", "1 while the store answers.")

RECORDS_LOST = Metric(
    "tollhouse.records.lost",
    "counter",
    "Usage and decision records never filed because the store was away: `too_long` for them to "
    "wait, or `too_many` of requests that cost nothing waited already.",
    "{record}",
    (REASON,),
)

FEEDBACK = Metric(
    "tollhouse.feedback",
    "counter",
    "Feedback given, by what it said and whether a training row came of it.",
    "{feedback}",
    (OUTCOME, USABLE),
)
CAPTURES = Metric(
    "tollhouse.captures",
    "counter",
    "Conversations that may be kept for learning, by what became of them.",
    "{conversation}",
    (OUTCOME,),
)
COMPARISONS = Metric(
    "tollhouse.shadow.comparisons",
    "counter",
    "Shadow comparisons: labelled, or why there was no label.",
    "{comparison}",
    (OUTCOME,),
)
LABELS = Metric(
    "tollhouse.labels",
    "gauge",
    "Labels stored, by source and by the tier they speak of. The same in every worker.",
    "{label}",
    (SOURCE, SIDE),
)
ROUTER_ACTIVE = Metric(
    "tollhouse.router.active",
    "gauge",
    "1 for the artefact that was activated while this worker runs it, 0 while the configured one "
    "stands in for it.",
    "",
    (ARTEFACT,),
)
DETECTOR_UP = Metric(
    "tollhouse.router.detector.up",
    "gauge",
    "1 while the router has a model that finds data classes and its last look did not fail; at 0 "
    "the patterns look alone.",
    "",
)

_POLICY = (POLICY,)
STEERING_THRESHOLD = Metric(
    "tollhouse.steering.threshold",
    "gauge",
    "The threshold on gain in force, before budget pressure.",
    "",
    _POLICY,
)
STEERING_SHARE = Metric(
    "tollhouse.steering.share",
    "gauge",
    "Share of the last 2,000 scored requests that was decided for the strong tier.",
    "",
    _POLICY,
)
STEERING_QUALITY = Metric(
    "tollhouse.steering.quality",
    "gauge",
    "Expected quality of the last 2,000 scored requests over that of the strong tier for all.",
    "",
    _POLICY,
)
STEERING_COST = Metric(
    "tollhouse.steering.usd_per_1000",
    "gauge",
    "Settled USD per 1,000 scored requests, over the last 2,000.",
    "",
    _POLICY,
)
STEERING_TARGET = Metric(
    "tollhouse.steering.target",
    "gauge",
    "What the policy promises; the label says of what.",
    "",
    (POLICY, SIGNAL),
)
STEERING_BALANCE = Metric(
    "tollhouse.steering.balance",
    "gauge",
    "How far a promise has run ahead: from 1 on, decisions are forced.",
    "",
    _POLICY,
)
STEERING_CERTIFIED = Metric(
    "tollhouse.steering.certified",
    "gauge",
    "0 where a promised violation rate rests on nothing: on too few rows, or on other models.",
    "",
    _POLICY,
)
KEY_CAPPED = Metric(
    "tollhouse.steering.key_capped",
    "counter",
    "Requests turned to the weak tier because their key has had its share of the strong one.",
    "{request}",
    _POLICY,
)
ROUTER_DRIFT = Metric(
    "tollhouse.router.drift",
    "gauge",
    "How far traffic is from the training rows: gain and domain as population stability index, "
    "embedding as cosine distance.",
    "",
    (SIGNAL,),
)
STEERING = (
    STEERING_THRESHOLD,
    STEERING_SHARE,
    STEERING_QUALITY,
    STEERING_COST,
    STEERING_TARGET,
    STEERING_BALANCE,
    STEERING_CERTIFIED,
    ROUTER_DRIFT,
)

COMMON = (
    REQUEST_DURATION,
    FIRST_TOKEN,
    PER_TOKEN,
    OVERHEAD,
    ROUTER_SECONDS,
    REQUESTS,
    REFUSED,
    COST,
    ERRORS,
)
COUNTERS = (RECORDS_LOST, FEEDBACK, CAPTURES, COMPARISONS, KEY_CAPPED)
GAUGES = (
    IN_FLIGHT,
    BACKEND_UP,
    ROUTER_INFO,
    OUTBOX_LAG,
    STORE_UP,
    LABELS,
    ROUTER_ACTIVE,
    DETECTOR_UP,
    *STEERING,
)


def spelling(environ: Mapping[str, str]) -> Names:
    """The spelling that the environment asks for."""
    asked = {part.strip() for part in environ.get(OPT_IN, "").split(",")}
    return LATEST if OPT_IN_LATEST in asked else V1_41


def metrics(names: Names) -> tuple[Metric, ...]:
    """Every metric of a gateway that uses this spelling."""
    own = (
        names.duration,
        names.first_chunk,
        names.token_usage,
        names.input_tokens,
        names.output_tokens,
        names.input_total,
        names.output_total,
    )
    return (*(metric for metric in own if metric is not None), *COMMON, *COUNTERS, *GAUGES)


def sample_names(names: Names) -> frozenset[str]:
    """Every sample name on `/metrics`, for checks of dashboards and alerts."""
    return frozenset(sample for metric in metrics(names) for sample in metric.samples)


def label(name: str) -> str:
    """A name as a Prometheus label or metric: dots become underscores."""
    return name.replace(".", "_")
