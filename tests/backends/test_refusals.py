from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.dialects.refusals import (
    ErrorBody,
    Refusal,
    error_for,
    parse_error,
    read_error,
    redact,
    retry_after,
)
from backends.errors import BackendError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"retry-after": b"2"}, 2.0),
        ({b"retry-after": b"0.5"}, 0.5),
        ({b"retry-after": b"9", b"retry-after-ms": b"1500"}, 1.5),
        ({b"retry-after": b"Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0),
        ({b"retry-after": b"Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({b"retry-after": b"-3"}, None),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"inf"}, None),
        ({b"retry-after": b"soon"}, None),
        ({b"retry-after": b"999999999"}, 86_400.0),
        ({b"x-ratelimit-reset-requests": b"6m0s"}, 360.0),
        ({b"x-ratelimit-reset-requests": b"120ms"}, 0.12),
        ({b"x-ratelimit-reset-requests": b""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[bytes, bytes], seconds: float | None) -> None:
    assert retry_after(list(headers.items()), 1000.0) == seconds


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "m", "code": "c", "type": "t", "param": "p"}}, ("m", "c", "t", "p")),
        ({"error": "m"}, ("m", "", "", None)),
        ({"message": "m", "code": 400}, ("m", "", "", None)),
        ({"detail": "m"}, ("m", "", "", None)),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, ("m", "", "t", None)),
        (
            [{"error": {"message": "m", "status": "INVALID", "code": 400}}],
            ("m", "", "INVALID", None),
        ),
        ({"detail": [{"loc": 1}]}, ("", "", "", None)),
        (None, ("", "", "", None)),
        (7, ("", "", "", None)),
    ],
)
def test_error_forms(body: Any, expected: tuple[str, str, str, str | None]) -> None:
    error = read_error(body)
    assert (error.message, error.code, error.type, error.param) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_some_error_body(data: bytes) -> None:
    assert isinstance(parse_error(data), ErrorBody)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "innererror", "detail"]),
            inner,
        )
    ),
)


@given(JSON, st.integers(300, 599), st.text(min_size=8, max_size=30))
def test_every_refusal_is_a_backend_error_without_the_key(
    value: Any, status: int, key: str
) -> None:
    body = read_error(value)
    leaky = ErrorBody(body.message + key, body.code, body.type, key, body.status)
    error = error_for(Refusal(status, leaky, secrets=(key,)))
    assert isinstance(error, BackendError)
    assert error.status == status
    assert error.message
    if key.isprintable() and key not in "[redacted]":
        assert key not in error.message
        assert key not in (error.param or "")


def test_redaction() -> None:
    text = redact("Incorrect API key: sk-abcdef123456, Bearer tok\nen and AIzaSyA1234567890", ())
    assert "abcdef" not in text
    assert "tok" not in text
    assert "AIza" not in text
    assert "\n" not in text
    assert len(redact("x" * 10_000)) == 500


@pytest.mark.parametrize("around", ["detail", "message", "both"])
def test_what_a_validator_complains_of_is_said(around: str) -> None:
    """As FastAPI lists it, and Mistral inside its own form; the input itself is not repeated."""
    odd = {"loc": "body", "msg": 7}
    found: list[Any] = [
        {"loc": ["body", "messages", 1, "name"], "msg": "Extra inputs", "input": "secret words"},
        {"loc": ["body", "n"], "msg": "too many", "type": "int"},
        odd,
        "x",
    ]
    body: dict[str, Any] = {"detail": found}
    if around == "message":
        body = {"object": "error", "message": body, "code": None}
    elif around == "both":
        body = {"object": "Error", "message": found, **body, "code": 3001}
    assert read_error(body).message == "body.messages.1.name: Extra inputs; body.n: too many"
