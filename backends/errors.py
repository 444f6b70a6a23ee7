"""What can go wrong between the gateway and a model.

::

    BackendError
    +-- RetryableError             the same candidate may be tried again
    |   +-- ConnectFailed          no connection, or it was lost before any answer
    |   +-- RateLimited            429; `retry_after` in seconds when the upstream said so
    |   +-- Overloaded             503, 529
    |   +-- UpstreamFailed         500, 502, 504 and unknown 5xx
    +-- SpillableError             only another candidate may be tried
    |   +-- FirstTokenTimeout      connected, but no answer in time
    |   +-- UpstreamTimeout        the total deadline of the call ran out
    |   +-- UpstreamAuthFailed     401 or 403: the gateway's own key was refused
    |   +-- UpstreamBilling        402, or 429 `insufficient_quota`
    |   +-- UpstreamModelMissing   404
    |   +-- ContextTooLong         a model with a larger window may still answer
    |   +-- UpstreamRedirected     3xx: never followed
    |   +-- UpstreamProtocolError  not an answer of the dialect: HTML, bad JSON, too large
    |   +-- Untranslatable         the dialect has no place for a field that changes the meaning
    +-- FatalError                 no other candidate would do better, or none may be asked
    |   +-- InvalidUpstreamRequest 400, 413, 422: the request itself is at fault
    |   +-- ContentFiltered        refused by the provider's content filter: not routed around
    |   +-- InvalidValue           a field of the request is wrong in itself
    +-- StreamBroken               after the first byte of an answer
        +-- StreamTruncated        ended without a finish reason or terminal event
        |   +-- ChoicesMissing     ended without `[DONE]` before all choices that were asked for
        +-- StreamIdle             nothing came for the idle timeout
        +-- StreamFailed           the upstream sent an error event

Whether a StreamBroken may still move to another candidate is decided by whoever has
committed the answer to the client; the error itself does not know.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "ChoicesMissing",
    "ConnectFailed",
    "ContentFiltered",
    "ContextTooLong",
    "FatalError",
    "FirstTokenTimeout",
    "InvalidUpstreamRequest",
    "InvalidValue",
    "Overloaded",
    "RateLimited",
    "RetryableError",
    "SpillableError",
    "StreamBroken",
    "StreamFailed",
    "StreamIdle",
    "StreamTruncated",
    "Untranslatable",
    "UpstreamAuthFailed",
    "UpstreamBilling",
    "UpstreamFailed",
    "UpstreamModelMissing",
    "UpstreamProtocolError",
    "UpstreamRedirected",
    "UpstreamTimeout",
]


class BackendError(Exception):
    """An upstream attempt that gave no complete answer.

    `message` is safe to show to a client: it never holds a key, a prompt or an answer.
    `status` is the upstream's HTTP status, or None when there was none. `code` and `param`
    follow the OpenAI error form. `retry_after` is in seconds. `sends` is how often the request
    was put on the wire: 2 when a kept-alive connection proved dead and the fresh one failed too,
    0 for what was found out before anybody was asked.
    """

    kind = "upstream_error"
    sends = 1

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


class RetryableError(BackendError):
    pass


class ConnectFailed(RetryableError):
    kind = "connect_failed"


class RateLimited(RetryableError):
    kind = "upstream_rate_limited"


class Overloaded(RetryableError):
    kind = "upstream_overloaded"


class UpstreamFailed(RetryableError):
    kind = "upstream_error"


class SpillableError(BackendError):
    pass


class FirstTokenTimeout(SpillableError):
    kind = "first_token_timeout"


class UpstreamTimeout(SpillableError):
    kind = "upstream_timeout"


class UpstreamAuthFailed(SpillableError):
    kind = "upstream_auth_failed"


class UpstreamBilling(SpillableError):
    kind = "upstream_billing"


class UpstreamModelMissing(SpillableError):
    kind = "upstream_model_missing"


class ContextTooLong(SpillableError):
    kind = "context_length_exceeded"


class UpstreamRedirected(SpillableError):
    kind = "upstream_redirected"


class UpstreamProtocolError(SpillableError):
    kind = "upstream_protocol_error"


class Untranslatable(SpillableError):
    """`param` names the field."""

    kind = "unsupported_parameter"
    sends = 0


class FatalError(BackendError):
    pass


class InvalidUpstreamRequest(FatalError):
    kind = "invalid_request"


class ContentFiltered(FatalError):
    kind = "content_filter"


class InvalidValue(FatalError):
    """`param` names the field."""

    kind = "invalid_value"
    sends = 0


class StreamBroken(BackendError):
    kind = "upstream_stream_broken"


class StreamTruncated(StreamBroken):
    kind = "upstream_stream_truncated"


class ChoicesMissing(StreamTruncated):
    """Every choice that came has its finish reason. The stream was cut, or the engine ignores `n`
    and sends no `[DONE]`: that cannot be told apart, so nothing is held against the engine."""

    kind = "upstream_choices_missing"


class StreamIdle(StreamBroken):
    kind = "upstream_stream_idle"


class StreamFailed(StreamBroken):
    kind = "upstream_stream_failed"
