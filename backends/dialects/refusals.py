"""What an upstream's error answer means: one table from (status, code, text) to the error tree."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from backends.errors import (
    BackendError,
    ContentFiltered,
    ContextTooLong,
    InvalidUpstreamRequest,
    Overloaded,
    RateLimited,
    UpstreamAuthFailed,
    UpstreamBilling,
    UpstreamFailed,
    UpstreamModelMissing,
    UpstreamProtocolError,
    UpstreamRedirected,
)

__all__ = [
    "ErrorBody",
    "Refusal",
    "error_for",
    "parse_error",
    "read_error",
    "redact",
    "retry_after",
    "secrets_of",
]

_MESSAGE_CHARS = 500
_MOST_COMPLAINTS = 3
_MIN_KEY_CHARS = 4
# A shorter header value is a region or a version: taking it out would spoil messages for nothing.
_MIN_HEADER_CHARS = 8
_MAX_RETRY_AFTER = 86_400.0
_DECODE = msgspec.json.Decoder().decode

_CONTEXT_CODES = frozenset(
    ("context_length_exceeded", "exceed_context_size_error", "context_window_exceeded")
)
_CONTEXT_TEXT = re.compile(
    r"maximum context length|context length exceeded|prompt is too long|context window"
    r"|exceeds? the (available )?context size|input is too long|too many input tokens"
    r"|longer than the (model's )?(maximum )?context|exceeds the maximum number of tokens",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset(
    ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation")
)
_BILLING_CODES = frozenset(("insufficient_quota", "billing_error", "billing_hard_limit_reached"))
_KEY_TEXT = re.compile(r"api key not valid|invalid api key|incorrect api key", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?i:bearer)\s+\S+|\b(?:sk|gsk|xai|th|key)-[\w-]{6,}\S*|\bAIza[\w-]{10,}"
)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class ErrorBody(msgspec.Struct, frozen=True):
    """The parts of an error that mean something, in whatever form they came. `status` is the HTTP
    status named inside the body (vLLM and SGLang put one into a 200 stream), if it is one."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str | None = None
    status: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """An error answer. `secrets` never appear in a message; `now` is Unix time in seconds, for
    a Retry-After that is a date."""

    status: int
    body: ErrorBody
    headers: Sequence[tuple[bytes, bytes]] = ()
    secrets: tuple[str, ...] = ()
    now: float = 0.0


def parse_error(data: bytes) -> ErrorBody:
    """An error body of any dialect; an empty ErrorBody when it is none (an HTML page, say)."""
    try:
        return read_error(_DECODE(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody()


def read_error(value: Any) -> ErrorBody:
    """Forms: `{"error": {...}}`, `{"error": "text"}`, `{"message": ...}`, `{"detail": ...}`,
    `{"type": "error", "error": {...}}`, Gemini's list around one of them, and FastAPI's list of
    validation errors in place of a text."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and "error" in value:
        value = value["error"]
    if isinstance(value, str):
        return ErrorBody(message=value)
    if not isinstance(value, dict):
        return ErrorBody()
    code = value.get("code")
    param = value.get("param")
    return ErrorBody(
        message=_said(value.get("message")) or _said(value.get("detail")),
        code=code if isinstance(code, str) else _inner_code(value),
        type=_text(value.get("type")) or _text(value.get("status")),
        param=param if isinstance(param, str) else None,
        status=_http_status(code),
    )


def _said(value: Any) -> str:
    """A text; or the first few of a list of `{"loc": [...], "msg": ...}`, with or without `detail`
    around it. What they repeat of the request (`input`) stays out."""
    if isinstance(value, dict):
        value = value.get("detail")
    if not isinstance(value, list):
        return _text(value)
    complaints: list[str] = []
    for item in value:
        match item:
            case {"loc": [*path], "msg": str(text)}:
                complaints.append(f"{'.'.join(map(str, path))}: {text}")
    return "; ".join(complaints[:_MOST_COMPLAINTS])


def _inner_code(value: dict[str, Any]) -> str:
    # Azure says what was wrong one level down.
    inner = value.get("innererror")
    return _text(inner.get("code")) if isinstance(inner, dict) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _http_status(code: Any) -> int | None:
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code[:4])
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        return code
    return None


def secrets_of(api_key: str | None, headers: Mapping[str, str]) -> tuple[str, ...]:
    """What `redact` has to take out of an upstream's words: the key, and every configured header
    value of 8 characters or more, with the credential of one like `Basic abc` by itself too. The
    longest first, so that none is hidden by a part of it."""
    found = {api_key} if api_key and len(api_key) >= _MIN_KEY_CHARS else set()
    for value in headers.values():
        words = value.split()
        parts = (value.strip(), words[1] if len(words) == 2 else "")
        found.update(part for part in parts if len(part) >= _MIN_HEADER_CHARS)
    return tuple(sorted(found, key=lambda secret: (-len(secret), secret)))


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without these secrets or anything that looks like a key, cut to 500 characters."""
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
    text = _SECRET_TEXT.sub("[redacted]", text)
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"


def retry_after(headers: Iterable[tuple[bytes, bytes]], now: float) -> float | None:
    """Seconds to wait, from `retry-after-ms`, `retry-after` (seconds or a date) or, failing
    these, `x-ratelimit-reset-requests` (`1s`, `6m0s`). None when nothing believable is there."""
    found = {name: value.decode("latin-1").strip() for name, value in headers}
    for name, read in (
        (b"retry-after-ms", lambda text: _number(text, 0.001)),
        (b"retry-after", lambda text: _number(text, 1.0)),
        (b"retry-after", lambda text: _date(text, now)),
        (b"x-ratelimit-reset-requests", _duration),
    ):
        seconds = _try(read, found.get(name))
        if seconds is not None:
            return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
    return None


def _try(read: Callable[[str], float | None], text: str | None) -> float | None:
    if not text:
        return None
    try:
        return read(text)
    except (ValueError, OverflowError):
        return None


def _number(text: str, unit: float) -> float | None:
    seconds = float(text) * unit
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date(text: str, now: float) -> float:
    return parsedate_to_datetime(text).timestamp() - now


def _duration(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000


def error_for(refusal: Refusal) -> BackendError:
    """The error that an answer with this status and body stands for.

    Only errors that are the request's own fault carry the upstream's words: the others may name
    keys, accounts or hosts that are not the client's business.
    """
    status, body = refusal.status, refusal.body
    codes = {body.code.lower(), body.type.lower()}
    if 300 <= status < 400:
        return UpstreamRedirected("the upstream answered with a redirect", status=status)
    if not codes.isdisjoint(_BILLING_CODES) or status == 402:
        return UpstreamBilling("the upstream refused for billing reasons", status=status)
    if status in (401, 403) or (status == 400 and _KEY_TEXT.search(body.message)):
        return UpstreamAuthFailed("the upstream refused the gateway's key", status=status)
    if status == 404 or (status == 400 and "model_not_found" in codes):
        return UpstreamModelMissing("the upstream does not know the model", status=status)
    if status in (400, 413, 422):
        return _at_fault(refusal, codes)
    wait = retry_after(refusal.headers, refusal.now)
    if status == 429:
        return RateLimited("the upstream limits the rate", status=status, retry_after=wait)
    if status in (503, 529) or "overloaded_error" in codes:
        return Overloaded("the upstream is overloaded", status=status, retry_after=wait)
    if status >= 500 or status == 408:
        return UpstreamFailed(f"the upstream failed with {status}", status=status)
    return UpstreamProtocolError(f"the upstream answered with {status}", status=status)


def _at_fault(refusal: Refusal, codes: set[str]) -> BackendError:
    status, body = refusal.status, refusal.body
    message = redact(body.message, refusal.secrets) or f"the upstream refused with {status}"
    if not codes.isdisjoint(_CONTEXT_CODES) or _CONTEXT_TEXT.search(body.message):
        return ContextTooLong(message, status=status, code="context_length_exceeded")
    if not codes.isdisjoint(_FILTER_CODES):
        return ContentFiltered(message, status=status, code="content_filter")
    code = body.code if re.fullmatch(r"[a-z][a-z0-9_]{0,63}", body.code) else None
    param = redact(body.param, refusal.secrets) if body.param else None
    return InvalidUpstreamRequest(message, status=status, code=code, param=param)
