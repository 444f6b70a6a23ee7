"""A client's request as one OpenAI-compatible API takes it: by its quirks, as data."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from backends.base import Call
from backends.dialects.report import Report

__all__ = ["Quirks", "encode_call"]

# What may not be left out silently, with the values that mean "not asked for".
_MEANINGFUL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "auto", "none"),
    "functions": (None, []),
    "function_call": (None, "auto", "none"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
}
_KEPT = frozenset(
    {"model", "messages", "prompt", "input", "stream", "stream_options"}
    | {"max_tokens", "max_completion_tokens"}
)
_SAMPLING = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
# The conversation would be another one without them.
_SAID = frozenset({"audio", "function_call", "tool_calls"})
_EMPTY: tuple[Any, ...] = (None, "", [])
# Its own template has the role, and reads `system` as something else.
_KNOWS_DEVELOPERS = "gpt-oss"
# For calls that no Gemini model has made: ai.google.dev/gemini-api/docs/thought-signatures.
_UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an API differs from OpenAI's.

    `drop_fields`: request fields that it refuses. `allow_fields`: when set, the only ones it
    accepts (besides model, messages, prompt, input, stream and the token limit).
    `stream_options`: whether it may be asked for usage in streams. `max_tokens_field`: the one
    name of the token limit that it knows, when it knows only one.
    `fixed_sampling`: patterns of models that refuse `stop` and any sampling but the default.
    `drop_message_fields`: fields of messages that it refuses, also when they hold nothing.
    `developer_role`: whether it knows the role; else such messages go out as `system`.
    `tool_id_chars`: the one length of the ids of tool calls that it takes, letters and digits
    only; 0 for any id. `signed_calls`: patterns of models that refuse a tool call of the turn in
    hand which carries no signature of Google's. `calls_end_with_stop`: an answer of tool calls may
    have the finish reason `stop`, where OpenAI's says `tool_calls`.
    """

    drop_fields: tuple[str, ...] = ()
    allow_fields: tuple[str, ...] | None = None
    stream_options: bool = True
    max_tokens_field: str | None = None
    fixed_sampling: tuple[str, ...] = ()
    drop_message_fields: frozenset[str] = frozenset()
    developer_role: bool = True
    tool_id_chars: int = 0
    signed_calls: tuple[str, ...] = ()
    calls_end_with_stop: bool = False


def encode_call(call: Call, quirks: Quirks) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body to send, and the names of fields that were left out.

    Raises Untranslatable when a field that changes the meaning has no place upstream.
    """
    report = Report(call.drop_params)
    body = {**call.body, "model": call.model}
    _drop_fields(body, quirks, report)
    if call.operation == "chat":
        _fix_sampling(body, call.model, quirks, report)
        _fit_messages(body, call.model, quirks, report)
        _mark_calls(body, call.model, quirks)
        _fit_limit(body, quirks)
    _fit_stream(body, call, quirks)
    return body, report.dropped


def _drop_fields(body: dict[str, Any], quirks: Quirks, report: Report) -> None:
    if not quirks.drop_fields and quirks.allow_fields is None:
        return
    allowed = None if quirks.allow_fields is None else _KEPT.union(quirks.allow_fields)
    for field in list(body):
        if field in quirks.drop_fields or (allowed is not None and field not in allowed):
            value = body.pop(field)
            if value in _MEANINGFUL.get(field, (value,)):
                report.drop(field)
            else:
                report.refuse(field, f"the chosen model does not support {field}")


def _fix_sampling(body: dict[str, Any], model: str, quirks: Quirks, report: Report) -> None:
    if not quirks.fixed_sampling or not _matches(model, quirks.fixed_sampling):
        return
    for field, default in _SAMPLING.items():
        if body.pop(field, None) not in (None, default):
            report.drop(field)
    if body.pop("stop", None):
        report.refuse("stop", "the chosen model does not support stop")


@lru_cache(maxsize=1024)
def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _fit_limit(body: dict[str, Any], quirks: Quirks) -> None:
    if quirks.max_tokens_field is None:
        return
    limit = body.pop("max_tokens", None)
    limit = body.pop("max_completion_tokens", None) or limit
    if limit is not None:
        body[quirks.max_tokens_field] = limit


def _fit_stream(body: dict[str, Any], call: Call, quirks: Quirks) -> None:
    if call.operation == "embeddings":
        body.pop("stream", None)
    elif call.stream:
        body["stream"] = True
        options = body.get("stream_options")
        if quirks.stream_options:
            own = options if isinstance(options, Mapping) else {}
            body["stream_options"] = {**own, "include_usage": True}
        else:
            body.pop("stream_options", None)
    else:
        if body.get("stream") is not None:
            body["stream"] = False
        body.pop("stream_options", None)


# -- messages -----------------------------------------------------------------------------------


def _fit_messages(body: dict[str, Any], model: str, quirks: Quirks, report: Report) -> None:
    unknown, ids = quirks.drop_message_fields, quirks.tool_id_chars
    rename = not quirks.developer_role and _KNOWS_DEVELOPERS not in model.lower()
    messages = body.get("messages")
    if not isinstance(messages, list) or not (rename or unknown or ids):
        return
    # Most conversations need no change: they are looked through, and not copied.
    unfit = [
        at
        for at, message in enumerate(messages)
        if isinstance(message, dict)
        and (
            (rename and message.get("role") == "developer")
            or (unknown and not unknown.isdisjoint(message))
            or (ids and ("tool_calls" in message or "tool_call_id" in message))
        )
    ]
    if unfit:
        body["messages"] = messages = list(messages)
    for at in unfit:
        messages[at] = _fit_message(messages[at], rename, quirks, report)


def _fit_message(
    message: dict[str, Any], rename: bool, quirks: Quirks, report: Report
) -> dict[str, Any]:
    if rename and message.get("role") == "developer":
        message = {**message, "role": "system"}
    unknown = quirks.drop_message_fields & message.keys()
    if unknown:
        for field in sorted(unknown):
            if message[field] in _EMPTY:
                continue
            if field in _SAID:
                report.refuse(f"messages.{field}", f"the chosen model does not support {field}")
            else:
                report.drop(f"messages.{field}")
        message = {name: value for name, value in message.items() if name not in unknown}
    return _with_fitting_ids(message, quirks.tool_id_chars) if quirks.tool_id_chars else message


def _with_fitting_ids(message: dict[str, Any], chars: int) -> dict[str, Any]:
    """The ids of tool calls and of their results, made to fit: the same id in the same way."""
    answered, calls = message.get("tool_call_id"), message.get("tool_calls")
    if isinstance(answered, str):
        message = {**message, "tool_call_id": _fitting_id(answered, chars)}
    if isinstance(calls, list):
        fitted = [
            {**call, "id": _fitting_id(call["id"], chars)}
            if isinstance(call, dict) and isinstance(call.get("id"), str)
            else call
            for call in calls
        ]
        message = {**message, "tool_calls": fitted}
    return message


def _mark_calls(body: dict[str, Any], model: str, quirks: Quirks) -> None:
    """Mark the calls since the user's last word that nobody has signed: the first of each message,
    as a signature stands there."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not quirks.signed_calls:
        return
    if not _matches(model, quirks.signed_calls):
        return
    body["messages"] = marked = list(messages)
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if not isinstance(message, dict):
            continue
        if message.get("role") == "user":
            break
        calls = message.get("tool_calls")
        plain = isinstance(calls, list) and all(isinstance(call, dict) for call in calls)
        if calls and plain and not any("extra_content" in call for call in calls):
            first = {**calls[0], "extra_content": _UNSIGNED}
            marked[at] = {**message, "tool_calls": [first, *calls[1:]]}


def _fitting_id(given: str, chars: int) -> str:
    if len(given) == chars and given.isascii() and given.isalnum():
        return given
    return blake2b(given.encode("utf-8", "surrogatepass")).hexdigest()[:chars]
