"""What is in a request body: its turns, all its text, and what it needs of a backend.

Bodies are parsed JSON in OpenAI form, as a client sent them: nothing here raises for any JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
_VISION = frozenset(("image_url", "input_image", "image"))
_AUDIO = frozenset(("input_audio", "audio"))
_FILES = frozenset(("file", "input_file"))
_PARSED_FORMATS = frozenset(("json_object", "json_schema"))
# A number this long can be somebody's; the upper bound keeps str() away from huge integers.
_LONG_NUMBER = 10**7
_TOO_LONG = 10**40
_BINARY_PREFIX = "data:"
_BINARY_KEYS = frozenset(("data", "file_data"))
_SHORTEST_BINARY = 64
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
    tool calls, of which some would look like a card's or a person's number, and binary data
    (`data:` URLs, audio, files): see `opaque_content`.
    """
    found: list[str] = []
    # A stack instead of recursion: depth costs nothing and nothing is missed below some level.
    stack: list[object] = [body]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if not (value.startswith(_BINARY_PREFIX) and _is_binary(value)):
                found.append(value)
        elif isinstance(value, Mapping):
            _push_items(value, stack)
        elif isinstance(value, (list, tuple)):
            stack.extend(reversed(value))
        elif isinstance(value, int) and _LONG_NUMBER <= abs(value) < _TOO_LONG:
            found.append(str(value))
        elif isinstance(value, float) and value.is_integer() and abs(value) >= _LONG_NUMBER:
            found.append(format(value, ".0f") if abs(value) < _TOO_LONG else "")
    return "\n".join(found)


def _push_items(value: Mapping[Any, Any], stack: list[object]) -> None:
    for key, item in reversed(list(value.items())):
        if isinstance(item, str) and (
            (key in _BINARY_KEYS and _is_binary(item))
            or (_names_a_call(key, value) and _random(item))
        ):
            continue
        if item is not None and item is not True and item is not False:
            stack.append(item)
        if key not in _WIRE_KEYS:
            stack.append(key)


def _names_a_call(key: object, value: Mapping[Any, Any]) -> bool:
    return key == "tool_call_id" or (key == "id" and isinstance(value.get("function"), Mapping))


def _random(value: str) -> bool:
    return len(value) <= _LONGEST_MADE_UP and _MADE_UP.fullmatch(value) is not None


def _is_binary(value: str) -> bool:
    """Base64 has no spaces. What has some is read, so that prose cannot pass as a file."""
    return len(value) >= _SHORTEST_BINARY and " " not in value


def opaque_content(body: Mapping[str, Any]) -> frozenset[str]:
    """Kinds of content that a model would read but no pattern can: any of `tokens` (prompts and
    inputs given as token ids), `image`, `audio`, `file`. For policies that must not let content
    pass unseen."""
    found = set()
    for kind in _part_types(body):
        if kind in _VISION:
            found.add("image")
        elif kind in _AUDIO:
            found.add("audio")
        elif kind in _FILES:
            found.add("file")
    for key in ("prompt", "input"):
        value = body.get(key)
        if isinstance(value, list) and any(isinstance(item, (int, list)) for item in value):
            found.add("tokens")
    return frozenset(found)


def needed_capabilities(body: Mapping[str, Any], operation: Operation) -> frozenset[str]:
    """What a backend must be able to do, the operation included, in the words of the model
    profiles: `tools`, `vision`, `audio`, `json_object`, `json_schema`, `logprobs`, `n`."""
    needed: set[str] = {operation}
    if operation == "embeddings":
        return frozenset(needed)
    if body.get("tools") or body.get("functions") or _has_tool_turns(body):
        needed.add("tools")
    for kind in _part_types(body):
        if kind in _VISION:
            needed.add("vision")
        elif kind in _AUDIO:
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


def _part_types(body: Mapping[str, Any]) -> list[str]:
    kinds: list[str] = []
    messages = body.get("messages")
    if not isinstance(messages, list):
        return kinds
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if isinstance(kind, str):
                    kinds.append(kind)
    return kinds
