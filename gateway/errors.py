"""Errors that a client of /v1 sees, and the one table that makes them from upstream errors.

The statuses and codes follow the OpenAI error form (all four keys, `code` a string or null).
"""

from __future__ import annotations

from math import ceil

import msgspec

from backends import errors as upstream

JSON_TYPE = (b"content-type", b"application/json")
MAX_RETRY_AFTER = 120


class GatewayError(Exception):
    """`retry` says whether the client's SDK should try again; None leaves it to the SDK.
    `retry_after` is in seconds. `context`: headers that say what had become of the request."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.param = param
        self.retry = retry
        self.retry_after = retry_after
        self.context: list[tuple[bytes, bytes]] = []

    def body(self) -> bytes:
        return _encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        found = [JSON_TYPE, *self.context]
        if self.retry is not None:
            found.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.retry_after is not None:
            seconds = min(MAX_RETRY_AFTER, max(1, ceil(self.retry_after)))
            found.append((b"retry-after", str(seconds).encode()))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found


_encode = msgspec.json.encode


def bad_request(message: str, param: str | None = None, code: str | None = None) -> GatewayError:
    return GatewayError(400, code, message, param=param)


def unauthenticated(message: str) -> GatewayError:
    return GatewayError(401, "invalid_api_key", message, type="authentication_error")


def residency_refused(message: str) -> GatewayError:
    return GatewayError(
        403, "residency_not_available", message, type="permission_denied", retry=False
    )


def budget_exceeded(message: str) -> GatewayError:
    return GatewayError(402, "budget_exceeded", message, type="insufficient_quota", retry=False)


def rate_limited(message: str, retry_after: float) -> GatewayError:
    return GatewayError(
        429,
        "rate_limit_exceeded",
        message,
        type="rate_limit_error",
        retry=True,
        retry_after=retry_after,
    )


def unavailable(code: str, message: str, *, retry_after: float | None = 1.0) -> GatewayError:
    return GatewayError(
        503, code, message, type="api_error", retry=retry_after is not None, retry_after=retry_after
    )


def model_not_found(model: str) -> GatewayError:
    return GatewayError(
        404,
        "model_not_found",
        f"There is no model {model[:200]!r}; GET /v1/models lists those that there are.",
        param="model",
    )


class _Out(msgspec.Struct, frozen=True):
    status: int
    code: str
    type: str
    message: str | None = None


# What every candidate's last error becomes for the client. The first class that fits wins.
_TABLE: tuple[tuple[type[upstream.BackendError], _Out], ...] = (
    (upstream.ContextTooLong, _Out(400, "context_length_exceeded", "invalid_request_error")),
    (upstream.ContentFiltered, _Out(400, "content_policy_violation", "invalid_request_error")),
    (upstream.Untranslatable, _Out(400, "unsupported_parameter", "invalid_request_error")),
    (upstream.InvalidValue, _Out(400, "invalid_value", "invalid_request_error")),
    (upstream.InvalidUpstreamRequest, _Out(400, "invalid_request", "invalid_request_error")),
    (upstream.RateLimited, _Out(429, "rate_limit_exceeded", "rate_limit_error")),
    (upstream.UpstreamBilling, _Out(502, "upstream_billing", "api_error")),
    (upstream.UpstreamAuthFailed, _Out(502, "upstream_auth_failed", "api_error")),
    (upstream.UpstreamModelMissing, _Out(502, "upstream_model_missing", "api_error")),
    (upstream.Overloaded, _Out(503, "upstream_overloaded", "api_error")),
    (upstream.ConnectFailed, _Out(503, "upstream_unreachable", "api_error")),
    (upstream.FirstTokenTimeout, _Out(504, "upstream_timeout", "api_error")),
    (upstream.UpstreamTimeout, _Out(504, "upstream_timeout", "api_error")),
    (upstream.StreamIdle, _Out(504, "upstream_timeout", "api_error")),
    (upstream.StreamTruncated, _Out(502, "upstream_stream_truncated", "api_error")),
    (upstream.BackendError, _Out(502, "upstream_error", "api_error")),
)


def from_upstream(error: upstream.BackendError, backend: str = "") -> GatewayError:
    """Every candidate was tried, or none may be: so the client's SDK should not try again by
    itself, except where the upstream said when. `backend`: whose failure it is, to be named where
    the request is not at fault."""
    out = next(out for kind, out in _TABLE if isinstance(error, kind))
    code: str | None = out.code
    if isinstance(error, upstream.InvalidUpstreamRequest):
        code = error.code
    later = error.retry_after if out.status in (429, 503) else None
    named = backend and out.status >= 429
    return GatewayError(
        out.status,
        code,
        f"{backend}: {error.message}" if named else error.message,
        type=out.type,
        param=error.param,
        retry=later is not None,
        retry_after=later,
    )


def stream_error_event(error: GatewayError) -> bytes:
    """The terminal event of a stream that failed after its first content (chat dialect)."""
    return b"data: " + error.body() + b"\n\n"
