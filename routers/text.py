"""What is in a request body: its turns, all its text, and what it needs of a backend.

Bodies are parsed JSON in OpenAI form, as a client sent them: nothing here raises for any JSON.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from routers.patterns.windows import WINDOW
from routers.types import Operation, Turn

# Keys of the wire form itself; every other key is text that the model sees (schemas, arguments).
_WIRE_KEY_NAMES = (
    "additionalProperties arguments audio call_id content data description detail enum "
    "file file_data format frequency_penalty function functions id image_url input "
    "input_audio items json_schema logprobs max_completion_tokens max_tokens messages "
    "metadata model n name object parallel_tool_calls parameters presence_penalty prompt "
    "properties reasoning_effort refusal required response_format role schema seed stop "
    "stream stream_options strict suffix temperature text tool_call_id tool_calls "
    "tool_choice tools top_logprobs top_p type url user"
)
_WIRE_KEYS = frozenset(_WIRE_KEY_NAMES.split())
# Types of content parts whose every string is text, and what is known of others.
_TEXTUAL = frozenset(("text", "input_text", "output_text", "refusal", "thinking"))
_OPAQUE = {
    **dict.fromkeys(("image_url", "input_image", "image"), "image"),
    **dict.fromkeys(("input_audio", "audio"), "audio"),
    **dict.fromkeys(("file", "input_file"), "file"),
}
_PARSED_FORMATS = frozenset(("json_object", "json_schema"))
# A number this long can be somebody's; the upper bound keeps str() away from huge integers.
_LONG_NUMBER = 10**7
_TOO_LONG = 10**40
# Binary data stands under these keys as a `data:` URL (RFC 2397), under some as bare base64 too.
_BINARY_KEYS = frozenset(("url", "image_url", "file_data", "data"))
_BARE_KEYS = frozenset(("file_data", "data"))
_DATA_URL = re.compile(
    r"data:(?:[\w.+-]{1,64}(?:/[\w.+-]{1,64})?)?((?:;[^;,]{1,200}){0,8});base64,",
    re.ASCII | re.IGNORECASE,
)
_SHORTEST_BINARY = 64
_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
# What a model's server names a tool call by (`call_Xf3...`): 20 random letters and digits or more,
# in which digits are followed by letters at least twice; none that has a meaning looks like that.
_MADE_UP = re.compile(
    r"(?:[A-Za-z]{2,10}[_-]){0,3}(?=(?:[A-Za-z]*[0-9]+[A-Za-z]+){2})[A-Za-z0-9]{20,48}"
)
_LONGEST_MADE_UP = 80


def turns_of(body: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The conversation in order. Text parts of one message are joined by newlines; arguments of
    tool calls are part of their message; images and audio leave nothing. Prompts and embedding
    inputs become turns of the user."""
    turns: list[Turn] = []
    messages = body.get("messages")
    if isinstance(messages, list):
        for message in messages:
            if isinstance(message, dict):
                role = message.get("role")
                text = "\n".join(_message_text(message))
                turns.append(Turn(role if isinstance(role, str) else "", text))
    for key in ("prompt", "input"):
        value = body.get(key)
        if isinstance(value, str):
            turns.append(Turn("user", value))
        elif isinstance(value, list):
            turns.extend(Turn("user", item) for item in value if isinstance(item, str))
    return tuple(turns)


def _message_text(message: dict[str, Any]) -> list[str]:
    texts = _content_text(message.get("content"))
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        texts.append(refusal)
    calls = message.get("tool_calls")
    functions = [message.get("function_call")]
    if isinstance(calls, list):
        functions += [call.get("function") for call in calls if isinstance(call, dict)]
    for function in functions:
        if isinstance(function, dict):
            parts = (function.get("name"), function.get("arguments"))
            texts.extend(part for part in parts if isinstance(part, str))
    return texts


def _content_text(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            fields = (part.get("text"), part.get("refusal"))
            texts.extend(field for field in fields if isinstance(field, str))
    return texts


def all_text(body: Mapping[str, Any]) -> str:
    """Every string that a model or an upstream would see, joined by newlines, in reading order:
    messages, names, tools with their schemas and results, metadata, unknown fields. Long whole
    numbers are included as digits. Left out are the wire form's own keys, the random identifiers of
    tool calls, of which some would look like a card's or a person's number, and binary data: base64
    of 64 characters or more, where an image, audio or a file has its data (see `opaque_content`).
    """
    return "\n".join(_read(body)[0])


def _read(body: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The strings, and whether binary data was left out."""
    found: list[str] = []
    left_out = False
    # A stack instead of recursion: depth costs nothing and nothing is missed below some level.
    stack: list[object] = [body]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Mapping):
            left_out = _push_items(value, stack) or left_out
        elif isinstance(value, (list, tuple)):
            stack.extend(reversed(value))
        elif isinstance(value, int) and _LONG_NUMBER <= abs(value) < _TOO_LONG:
            found.append(str(value))
        elif isinstance(value, float) and value.is_integer() and abs(value) >= _LONG_NUMBER:
            found.append(format(value, ".0f") if abs(value) < _TOO_LONG else "")
    return found, left_out


def _push_items(value: Mapping[Any, Any], stack: list[object]) -> bool:
    """Whether binary data was left out."""
    left_out = False
    for key, item in reversed(list(value.items())):
        if isinstance(item, str):
            if _names_a_call(key, value) and _random(item):
                continue
            if key in _BINARY_KEYS and (readable := _beside_binary(key, item)) is not None:
                left_out = True
                item = readable or None
        if item is not None and item is not True and item is not False:
            stack.append(item)
        if key not in _WIRE_KEYS:
            stack.append(key)
    return left_out


def _names_a_call(key: object, value: Mapping[Any, Any]) -> bool:
    return key == "tool_call_id" or (key == "id" and isinstance(value.get("function"), Mapping))


def _random(value: str) -> bool:
    return len(value) <= _LONGEST_MADE_UP and _MADE_UP.fullmatch(value) is not None


def _beside_binary(key: str, value: str) -> str | None:
    """The parameters of binary data in the value of such a key, which can be read; None for a
    text. Prose does not pass as a file: every character must be base64."""
    head = _DATA_URL.match(value)
    if head is not None:
        return head[1] if _is_base64(value, head.end()) else None
    return "" if key in _BARE_KEYS and _is_base64(value, 0) else None


def _is_base64(value: str, start: int) -> bool:
    """Whether all from `start` is whole base64 (RFC 4648, section 4), and long. Linear."""
    size = len(value) - start
    if size < _SHORTEST_BINARY or size % 4 or not value.isascii():
        return False
    end = len(value) - (2 if value.endswith("==") else value.endswith("="))
    return not any(
        value[at : min(at + WINDOW, end)].encode().translate(None, _BASE64)
        for at in range(start, end, WINDOW)
    )


def opaque_content(body: Mapping[str, Any]) -> frozenset[str]:
    """Kinds of content that a model would read but no pattern can: any of `tokens` (prompts and
    inputs given as token ids), `image`, `audio`, `file`, `other` (parts of a type that is not known
    to be text, and binary data in any other place). For policies that must not let content pass
    unseen."""
    found = {_OPAQUE.get(kind, "other") for kind in _part_types(body) if kind not in _TEXTUAL}
    for key in ("prompt", "input"):
        value = body.get(key)
        for item in value if isinstance(value, list) else ():
            if not isinstance(item, str):
                found.add("tokens" if isinstance(item, (int, list)) else "other")
    if not found and _read(body)[1]:
        found.add("other")
    return frozenset(found)


def needed_capabilities(body: Mapping[str, Any], operation: Operation) -> frozenset[str]:
    """What a backend must be able to do, the operation included, in the words of the model
    profiles: `tools`, `vision`, `audio`, `json_object`, `json_schema`, `logprobs`, `n`."""
    needed: set[str] = {operation}
    if operation == "embeddings":
        return frozenset(needed)
    if body.get("tools") or body.get("functions") or _has_tool_turns(body):
        needed.add("tools")
    parts = {_OPAQUE.get(kind) for kind in _part_types(body)}
    if "image" in parts:
        needed.add("vision")
    if "audio" in parts:
        needed.add("audio")
    modalities = body.get("modalities")
    if body.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        needed.add("audio")
    response_format = body.get("response_format")
    if isinstance(response_format, dict):
        parsed = response_format.get("type")
        if isinstance(parsed, str) and parsed in _PARSED_FORMATS:
            needed.add(parsed)
    # Completions ask with a number, where 0 still wants the chosen token's logprob.
    logprobs = body.get("logprobs")
    if (logprobs is not None and logprobs is not False) or body.get("top_logprobs"):
        needed.add("logprobs")
    if any(_more_than_one(body.get(key)) for key in ("n", "best_of")):
        needed.add("n")
    return frozenset(needed)


def _more_than_one(value: object) -> bool:
    return isinstance(value, (int, float)) and value > 1


def _has_tool_turns(body: Mapping[str, Any]) -> bool:
    messages = body.get("messages")
    if not isinstance(messages, list):
        return False
    return any(
        isinstance(message, dict)
        and (
            message.get("tool_calls")
            or message.get("function_call")
            or message.get("role") in ("tool", "function")
        )
        for message in messages
    )


def _part_types(body: Mapping[str, Any]) -> Iterator[str]:
    """The type of every content part; `text` for plain strings, "" where there is none."""
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            yield _part_type(part)


def _part_type(part: object) -> str:
    if isinstance(part, str):
        return "text"
    if not isinstance(part, dict):
        return ""
    kind = part.get("type")
    if kind is None and part.keys() <= {"text", "refusal"}:
        return "text"
    return kind if isinstance(kind, str) else ""
