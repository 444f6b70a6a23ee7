"""A request as the client wrote it: headers, body, and the checks that need nothing else."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from typing import Any

import msgspec

from gateway.bodies import BadBody, decode_object
from gateway.cache import CacheControl, parse_cache_control
from gateway.errors import GatewayError, bad_request
from routers.types import NANO_USD_PER_USD, Operation

RawHeaders = Iterable[tuple[bytes, bytes]]

# A client that could name an upstream host would be sent the provider's key with its request.
_FORBIDDEN = ("api_base", "base_url", "api_key", "api_version", "custom_llm_provider")
_MAX_TAGS = 16
# Labels are repeated in the answer's headers and in a refusal.
_MAX_LABELS = 64


class Controls(msgspec.Struct, frozen=True):
    """What the client asked of the gateway by header. `max_cost` is nano-USD."""

    token: str | None = None
    labels: tuple[str, ...] = ()
    policy: str = ""
    max_cost: int | None = None
    tags: tuple[str, ...] = ()
    cache: CacheControl = CacheControl()
    traceparent: str = ""


class Inbound(msgspec.Struct, frozen=True):
    """A parsed request. `body` is the JSON object as sent, unknown fields included."""

    request_id: str
    operation: Operation
    model: str
    body: dict[str, Any]
    stream: bool
    include_usage: bool
    controls: Controls


_ids = random.Random(random.SystemRandom().getrandbits(256))


def new_id(prefix: str) -> str:
    """96 random bits. Unique, not secret: an id is shown to clients and opens nothing."""
    return f"{prefix}{_ids.getrandbits(96):024x}"


def read_controls(headers: RawHeaders) -> Controls:
    """Raises GatewayError (400) for a header that cannot be read."""
    found: dict[bytes, bytes] = {}
    for name, raw in headers:
        if name not in _HEADERS:
            continue
        if name in found and name not in _LISTS:
            shown = name.decode()
            raise bad_request(f"Header {shown} is given twice.", shown)
        # Several lines of a list are one list (RFC 9110 5.3): none may be lost, labels least.
        found[name] = found[name] + b"," + raw if name in found else raw
    values: dict[str, Any] = {}
    for name, raw in found.items():
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError as exc:
            raise bad_request(f"Header {name.decode()} is not UTF-8.", name.decode()) from exc
        _HEADERS[name](values, text)
    return Controls(**values)


def _bearer(values: dict[str, Any], text: str) -> None:
    scheme, _, token = text.partition(" ")
    if scheme.lower() == "bearer":
        values["token"] = token.strip()


def _api_key(values: dict[str, Any], text: str) -> None:
    values.setdefault("token", text)


def _labels(values: dict[str, Any], text: str) -> None:
    labels = _items(text)
    if len(labels) > _MAX_LABELS:
        name = "x-tollhouse-residency"
        raise bad_request(f"Header {name} takes up to {_MAX_LABELS} labels.", name)
    values["labels"] = labels


def _policy(values: dict[str, Any], text: str) -> None:
    values["policy"] = text


def _max_cost(values: dict[str, Any], text: str) -> None:
    name = "x-tollhouse-max-cost"
    try:
        usd = float(text)
    except ValueError as exc:
        raise bad_request(f"Header {name} must be an amount in USD.", name) from exc
    if not 0 <= usd <= 9_000_000:
        raise bad_request(f"Header {name} must be between 0 and 9,000,000 USD.", name)
    values["max_cost"] = int(usd * NANO_USD_PER_USD)


def _tags(values: dict[str, Any], text: str) -> None:
    tags = _items(text)
    if len(tags) > _MAX_TAGS or any(len(tag) > 64 for tag in tags):
        name = "x-tollhouse-tags"
        raise bad_request(f"Header {name} takes up to {_MAX_TAGS} tags of 64 characters.", name)
    values["tags"] = tags


def _cache(values: dict[str, Any], text: str) -> None:
    """Of two headers the stricter counts, directive by directive."""
    given, other = parse_cache_control(text), values.get("cache", CacheControl())
    ages = [age for age in (given.max_age, other.max_age) if age is not None]
    values["cache"] = CacheControl(
        read=given.read and other.read,
        write=given.write and other.write,
        max_age=min(ages, default=None),
    )


def _traceparent(values: dict[str, Any], text: str) -> None:
    values["traceparent"] = text[:64]


def _items(text: str) -> tuple[str, ...]:
    return tuple(item for part in text.split(",") if (item := part.strip()))


_LISTS = frozenset(
    (b"x-tollhouse-residency", b"x-tollhouse-tags", b"x-tollhouse-cache", b"cache-control")
)
_HEADERS: dict[bytes, Callable[[dict[str, Any], str], None]] = {
    b"authorization": _bearer,
    b"x-api-key": _api_key,
    b"x-tollhouse-residency": _labels,
    b"x-tollhouse-policy": _policy,
    b"x-tollhouse-max-cost": _max_cost,
    b"x-tollhouse-tags": _tags,
    b"x-tollhouse-cache": _cache,
    b"cache-control": _cache,
    b"traceparent": _traceparent,
}


async def read_body(
    receive: Callable[[], Awaitable[Any]], headers: RawHeaders, limit: int
) -> bytes | None:
    """The request's body; None when the client went away first. Raises GatewayError 413."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    data: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(data) > limit:
            raise _too_large(limit)
        return data
    parts = [data]
    size = len(data)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> GatewayError:
    return GatewayError(
        413, "request_too_large", f"The request body is larger than {limit >> 20} MiB."
    )


def parse(operation: Operation, raw: bytes, controls: Controls, request_id: str) -> Inbound:
    """Raises GatewayError (400) naming the field in `param`."""
    try:
        body = decode_object(raw)
    except BadBody as exc:
        raise bad_request(str(exc), exc.field) from exc
    for field in _FORBIDDEN:
        if field in body:
            raise bad_request(
                f"{field} is not accepted: upstreams are chosen by the gateway.",
                field,
                "unsupported_parameter",
            )
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model must be a non-empty string.", "model")
    stream = _flag(body, "stream")
    if stream and operation == "embeddings":
        raise bad_request("stream is not available for embeddings.", "stream")
    _CHECKS[operation](body)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_request("stream_options must be an object.", "stream_options")
    if options is not None and not stream:
        raise bad_request("stream_options needs stream to be true.", "stream_options")
    include_usage = bool(options and options.get("include_usage"))
    return Inbound(request_id, operation, model, body, stream, include_usage, controls)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false.", name)
    return value


def _check_chat(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a non-empty array.", "messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_request("Each message must be an object.", f"messages[{i}]")
        if not isinstance(message.get("role"), str):
            raise bad_request("role must be a string.", f"messages[{i}].role")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise bad_request("content must be a string or an array.", f"messages[{i}].content")
    for name in ("tools", "functions"):
        if not isinstance(body.get(name) or [], list):
            raise bad_request(f"{name} must be an array.", name)
    if not isinstance(body.get("response_format") or {}, dict):
        raise bad_request("response_format must be an object.", "response_format")
    _check_numbers(body)


def _check_completions(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or not prompt:
        raise bad_request("prompt must be a non-empty string or array.", "prompt")
    _check_levels("prompt", prompt)
    # With `echo` no token may be asked for: the prompt's own are what is wanted.
    _check_numbers(body, fewest_tokens=0)


def _check_embeddings(body: dict[str, Any]) -> None:
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise bad_request("input must be a non-empty string or array.", "input")
    _check_levels("input", given)


def _check_levels(name: str, given: str | list[Any]) -> None:
    """At most two levels of arrays: of texts, of token ids, of arrays of token ids."""
    if isinstance(given, str) or list not in set(map(type, given)):
        return
    second = chain.from_iterable(item for item in given if isinstance(item, list))
    if list in set(map(type, second)):
        deep = (isinstance(item, list) and list in map(type, item) for item in given)
        raise bad_request(
            f"{name} takes strings, token ids and arrays of token ids.",
            f"{name}[{list(deep).index(True)}]",
        )


# name -> smallest and largest value; whole numbers where both bounds are ints.
_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 10_000_000),
    "max_completion_tokens": (1, 10_000_000),
    "n": (1, 128),
    "best_of": (1, 128),
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "top_logprobs": (0, 20),
}


def _check_numbers(body: dict[str, Any], *, fewest_tokens: int = 1) -> None:
    for name in _RANGES.keys() & body.keys():
        value = body[name]
        if value is None:
            continue
        low, high = _RANGES[name]
        if name == "max_tokens":
            low = fewest_tokens
        whole = isinstance(low, int)
        right_type = isinstance(value, int if whole else int | float)
        if not right_type or isinstance(value, bool) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise bad_request(f"{name} must be {kind} between {low} and {high}.", name)


_CHECKS: dict[Operation, Callable[[dict[str, Any]], None]] = {
    "chat": _check_chat,
    "completions": _check_completions,
    "embeddings": _check_embeddings,
}


def output_field(inbound: Inbound) -> str:
    """The field that bounds the answer, as this request writes it or may."""
    newer = inbound.body.get("max_completion_tokens")
    return "max_completion_tokens" if newer else "max_tokens"
