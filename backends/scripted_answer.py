"""What the scripted model says: a pure function of the request.

Tokens are counted by rule, so that a test can predict every bill: a prompt is 4 per message plus
one per 4 UTF-8 bytes of its text, 85 per image; an answer is one per word, and one per 4 bytes of
a tool call's name and arguments.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from backends.faults import Plan

__all__ = ["Answer", "ToolCall", "compose", "count_prompt"]

_IMAGE_TOKENS = 85
_WORDS = re.compile(r"\s*\S+")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_NUMBER = re.compile(r"-?\d+")
_encode = msgspec.json.Encoder().encode


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: str

    @property
    def tokens(self) -> int:
        return _quarter(len(self.name.encode()) + len(self.arguments.encode()))


class Answer(msgspec.Struct, frozen=True):
    """`pieces`: the text, one token each. `finish` is an OpenAI finish reason; None withholds it.
    `prompt` and `completion` are what is charged, `reported` what the usage field claims."""

    pieces: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    finish: str | None
    prompt: int
    completion: int
    reported: tuple[int, int] | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _quarter(size: int) -> int:
    return -(-size // 4)


def count_prompt(body: Mapping[str, Any]) -> int:
    """Prompt tokens of a chat, completions, embeddings or Anthropic messages request."""
    total = 0
    if "messages" in body:
        for message in _dicts(body.get("messages")):
            total += 4 + _content_tokens(message.get("content"))
            for call in _dicts(message.get("tool_calls")):
                total += _quarter(len(_encode(call.get("function"))))
        if body.get("system"):
            total += 4 + _content_tokens(body["system"])
    else:
        prompt = body.get("prompt", body.get("input", ""))
        for item in [prompt] if isinstance(prompt, str) else prompt or ():
            total += 4 + (_quarter(len(item.encode())) if isinstance(item, str) else 1)
    if body.get("tools"):
        total += _quarter(len(_encode(body["tools"])))
    return total


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (
        (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())
    )


def _content_tokens(content: Any) -> int:
    if isinstance(content, str):
        return _quarter(len(content.encode()))
    total = 0
    for part in _dicts(content):
        if part.get("type") in ("image_url", "image"):
            total += _IMAGE_TOKENS
        elif part.get("type") == "tool_use":
            total += _quarter(len(_encode(part.get("input"))))
        elif part.get("type") == "tool_result":
            total += _content_tokens(part.get("content"))
        else:
            total += _quarter(len(str(part.get("text", "")).encode()))
    return total


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and any(isinstance(part, str) for part in content):
        return " ".join(part for part in content if isinstance(part, str))
    return " ".join(str(part.get("text", "")) for part in _dicts(content) if "text" in part)


def compose(body: Mapping[str, Any], plan: Plan) -> Answer:
    """The answer to a request of either dialect (tools, stop and limits are read in both forms)."""
    asked, by_user = _question(body)
    calls = _tool_calls(body, asked, by_user) if plan.tokens is None else ()
    pieces: tuple[str, ...] = ()
    finish: str | None = "tool_calls"
    if not calls:
        pieces, finish = _text(body, plan, asked)
    if plan.fault == "nofinish":
        finish = None
    prompt = count_prompt(body)
    completion = len(pieces) + sum(call.tokens for call in calls)
    claims = {"nousage": None, "negusage": (-5, -7), "hugeusage": (10**12, 10**12)}
    reported = claims.get(plan.fault or "", (prompt, completion))
    return Answer(pieces, calls, finish, prompt, completion, reported)


def _question(body: Mapping[str, Any]) -> tuple[str, bool]:
    """The last text, and whether it is the user's turn (and not a tool's result)."""
    last: dict[str, Any] = {}
    for message in _dicts(body.get("messages")):
        last = message
    if not last:
        return _text_of(body.get("prompt", "")), True
    content = last.get("content")
    results = any(part.get("type") == "tool_result" for part in _dicts(content))
    return _text_of(content), last.get("role") == "user" and not results


def _text(body: Mapping[str, Any], plan: Plan, asked: str) -> tuple[tuple[str, ...], str]:
    if plan.tokens is not None:
        words = [f" w{number}" if number else "w0" for number in range(plan.tokens)]
    else:
        words = _WORDS.findall(_free_text(body, asked))
    finish = "stop"
    cut = _stopped("".join(words), body)
    if cut is not None:
        words = _WORDS.findall(cut)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if isinstance(limit, int) and 0 < limit < len(words):
        words, finish = words[:limit], "length"
    return tuple(words), finish


def _stopped(text: str, body: Mapping[str, Any]) -> str | None:
    stops = body.get("stop") or body.get("stop_sequences")
    listed = stops if isinstance(stops, list) else [stops]
    found = [text.find(stop) for stop in listed if isinstance(stop, str) and stop]
    places = [place for place in found if place >= 0]
    return text[: min(places)] if places else None


def _free_text(body: Mapping[str, Any], asked: str) -> str:
    wanted = body.get("response_format") or {}
    config = body.get("output_config")
    if isinstance(config, dict) and isinstance(config.get("format"), dict):
        wanted = {"type": "json_schema", "json_schema": {"schema": config["format"].get("schema")}}
    if wanted.get("type") == "json_schema":
        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return _encode(_example(schema, asked, schema)).decode()
    if wanted.get("type") == "json_object":
        keys = [first or second for first, second in _QUOTED.findall(asked)] or ["answer"]
        return _encode(dict.fromkeys(keys, "scripted")).decode()
    mark = hashlib.blake2s(asked.encode(), digest_size=4).hexdigest()
    return f"Scripted answer {mark} to you: {asked[:80]}".rstrip()


def _tool_calls(body: Mapping[str, Any], asked: str, by_user: bool) -> tuple[ToolCall, ...]:
    tools = [tool.get("function") or tool for tool in _dicts(body.get("tools"))]
    choice = body.get("tool_choice", "auto")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    forced = kind in ("required", "any", "function", "tool")
    if not tools or kind == "none" or not (forced or by_user):
        return ()
    name = None
    if isinstance(choice, dict):
        name = (choice.get("function") or choice).get("name")
    named = [tool for tool in tools if tool.get("name") == name]
    spoken = [tool for tool in tools if str(tool.get("name")) in asked]
    # The longest name that the text holds, so that `f_no_args` is not taken for `f`.
    spoken.sort(key=lambda tool: -len(str(tool.get("name"))))
    tool = (named or spoken or tools)[0]
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    arguments = _encode(_example(schema, asked, schema) or {}).decode()
    seed = f"{tool.get('name')}:{arguments}".encode()
    call_id = "call_" + hashlib.blake2s(seed, digest_size=12).hexdigest()
    return (ToolCall(call_id, str(tool.get("name")), arguments),)


def _example(schema: Any, asked: str, root: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that a simple JSON Schema accepts, with words and numbers of the question."""
    if not isinstance(schema, dict) or depth > 8:
        return {}
    if isinstance(schema.get("$ref"), str):
        return _example(_resolve(schema["$ref"], root), asked, root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _example(schema[key][0], asked, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        names = schema.get("properties") or {}
        return {name: _example(part, asked, root, depth + 1) for name, part in names.items()}
    if kind == "array":
        count = max(int(schema.get("minItems", 1)), 1)
        return [_example(schema.get("items") or {}, asked, root, depth + 1)] * count
    return _scalar(kind, schema, asked)


def _scalar(kind: str, schema: Mapping[str, Any], asked: str) -> Any:
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if kind in ("integer", "number"):
        # The last number: "the value of f2(3)" asks for 3.
        found = _NUMBER.findall(asked)
        return int(found[-1]) if found else int(schema.get("minimum", 1))
    quoted = _QUOTED.search(asked)
    if quoted:
        return quoted.group(1) or quoted.group(2)
    return asked[:40].strip() or "scripted"


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    value: Any = root
    for part in reference.removeprefix("#/").split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
