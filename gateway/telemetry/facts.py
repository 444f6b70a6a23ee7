"""What telemetry is told. Frozen values without content: no prompt, answer, key or id of a person.

Strings that become labels must come from the configuration or from fixed sets in the code; model
and backend names that the configuration does not know are shown as `_other`.
"""

from __future__ import annotations

import msgspec

from backends.base import Usage


class AttemptFacts(msgspec.Struct, frozen=True):
    """One call to an upstream, when it is over.

    `operation` is ours (`chat`, `completions`, `embeddings`); `provider` the provider's row name;
    `backend` and `model` as configured. Durations in seconds; `first_chunk` is None without a
    stream or without an answer. `error` is the `kind` of the BackendError, empty on success.
    `cost` in nano-USD. `response_model` and `finish` go to spans only.
    """

    operation: str
    provider: str
    backend: str
    model: str
    seconds: float
    first_chunk: float | None = None
    usage: Usage | None = None
    error: str = ""
    cost: int = 0
    tier: str = ""
    response_model: str = ""
    finish: str = ""


class RequestFacts(msgspec.Struct, frozen=True):
    """One request of a client, when it is over.

    `tier`, `backend` and `model` of the answer, empty when there was none. `reason` is the
    decision's, `cache` one of `hit`, `miss`, `bypass`, `off`, `unavailable`; `status` the HTTP
    status sent, and of a refusal or of a stream that broke off later the one that says why.
    `refused` is the code of a refusal (`budget_exceeded`, `residency_not_available` ...), empty
    otherwise. Durations in seconds: `overhead` is the time in the gateway itself, `score` the
    wait for the router, None when it was not asked.
    """

    operation: str
    status: int
    seconds: float
    overhead: float
    tier: str = ""
    backend: str = ""
    model: str = ""
    reason: str = ""
    cache: str = "off"
    refused: str = ""
    first_token: float | None = None
    output_tokens: int = 0
    score: float | None = None


class SpanStart(msgspec.Struct, frozen=True):
    """What is known when a call to a model begins. `traceparent` is the client's header (W3C
    Trace Context), empty without one. `labels` are the request's residency labels."""

    operation: str
    provider: str
    backend: str
    model: str
    tier: str = ""
    stream: bool = False
    server_address: str = ""
    server_port: int | None = None
    reason: str = ""
    policy: str = ""
    policy_version: int = 0
    labels: tuple[str, ...] = ()
    attempt: int = 1
    traceparent: str = ""
