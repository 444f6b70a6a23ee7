"""Anthropic messages requests to the internal form, for clients that speak that dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backends.dialects import ir
from backends.dialects.chat_messages import invalid, pop

DIALECT = "messages"
_CHOICES: dict[str, str] = {"auto": "auto", "any": "required", "none": "none", "tool": "tool"}
_ENCODER = msgspec.json.Encoder()


def decode_request(body: Mapping[str, Any]) -> ir.Request:
    """Raises InvalidValue, naming the field, for a body without usable messages."""
    rest = dict(body)
    messages = rest.pop("messages", None)
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "messages must be a non-empty list")
    turns: list[ir.Turn] = []
    for position, message in enumerate(messages):
        turns.extend(_decode_message(message, f"messages[{position}]", len(turns)))
    choice, parallel = _take_choice(rest)
    config = rest.pop("output_config", None)
    config = config if isinstance(config, dict) else {}
    metadata = rest.pop("metadata", None)
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return ir.Request(
        dialect=DIALECT,
        model=pop(rest, "model", str) or "",
        system=_take_system(rest),
        turns=tuple(turns),
        tools=_take_tools(rest),
        tool_choice=choice,
        parallel_tools=parallel,
        sampling=_take_sampling(rest),
        output_format=_format(config.get("format")),
        reasoning=_take_reasoning(rest, config),
        user=user if isinstance(user, str) else None,
        stream=pop(rest, "stream", bool),
        extras=rest,
    )


def _take_system(rest: dict[str, Any]) -> tuple[ir.System, ...]:
    system = rest.pop("system", None)
    if isinstance(system, str):
        return (ir.System((ir.Text(system),)),) if system else ()
    if system is None:
        return ()
    if not isinstance(system, list):
        raise invalid("system", "system must be a string or a list of text blocks")
    return tuple(ir.System((_content(block, f"system[{at}]"),)) for at, block in enumerate(system))


def _decode_message(message: object, path: str, source: int) -> list[ir.Turn]:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        raise invalid(path, f"{path} must be a message of the user or the assistant")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise invalid(f"{path}.content", f"{path}.content must be a string or a list of blocks")
    blocks = [_block(block, f"{path}.content[{index}]") for index, block in enumerate(content)]
    if message["role"] == "assistant":
        return [ir.Turn("assistant", tuple(blocks), source)]
    turns = [
        ir.Turn("tool", (part,), source + at)
        for at, part in enumerate(p for p in blocks if isinstance(p, ir.ToolResult))
    ]
    others = tuple(part for part in blocks if not isinstance(part, ir.ToolResult))
    if others or not turns:
        turns.append(ir.Turn("user", others, source + len(turns)))
    return turns


def _block(block: Any, path: str) -> ir.Part:
    match block:
        case {"type": "thinking", "thinking": str(text)}:
            signature = block.get("signature")
            return ir.Thinking(text, signature if isinstance(signature, str) else "")
        case {"type": "redacted_thinking", "data": str(data)}:
            return ir.RedactedThinking(data)
        case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
            arguments = _ENCODER.encode(block.get("input") or {}).decode()
            return ir.ToolCall(call_id, name, arguments)
        case {"type": "tool_result", "tool_use_id": str(call_id)}:
            return _result(block, call_id, path)
    return _content(block, path)


def _result(block: dict[str, Any], call_id: str, path: str) -> ir.ToolResult:
    content = block.get("content")
    if isinstance(content, str):
        parts: tuple[ir.Content, ...] = (ir.Text(content),)
    else:
        inner = content if isinstance(content, list) else []
        parts = tuple(_content(part, f"{path}.content[{at}]") for at, part in enumerate(inner))
    return ir.ToolResult(call_id, parts, is_error=block.get("is_error") is True)


def _content(block: Any, path: str) -> ir.Content:
    if not isinstance(block, dict):
        raise invalid(path, f"{path} must be an object")
    extras = {"cache_control": block["cache_control"]} if "cache_control" in block else {}
    match block:
        case {"type": "text", "text": str(text)}:
            return ir.Text(text, extras)
        case {
            "type": "image",
            "source": {"type": "base64", "media_type": str(kind), "data": str(data)},
        }:
            return ir.Image(media_type=kind, data=data, extras=extras)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return ir.Image(url=url, extras=extras)
        case {
            "type": "document",
            "source": {"type": "base64", "media_type": str(kind), "data": str(data)},
        }:
            title = block.get("title")
            return ir.Document(kind, data, title if isinstance(title, str) else None, extras)
    return ir.Opaque(DIALECT, block)


def _take_tools(rest: dict[str, Any]) -> tuple[ir.Tool, ...]:
    tools = rest.get("tools")
    if not isinstance(tools, list):
        return ()
    del rest["tools"]
    return tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools))


def _tool(tool: Any, path: str) -> ir.Tool:
    match tool:
        case {"name": str(name), "input_schema": dict(schema)}:
            description, strict = tool.get("description"), tool.get("strict")
            return ir.Tool(
                name=name,
                description=description if isinstance(description, str) else None,
                parameters=schema,
                strict=strict if isinstance(strict, bool) else None,
            )
    raise invalid(path, f"{path} is not a tool that the client runs")


def _take_choice(rest: dict[str, Any]) -> tuple[ir.ToolChoice | None, bool | None]:
    choice = rest.pop("tool_choice", None)
    if choice is None:
        return None, None
    mode = _CHOICES.get(choice.get("type", "")) if isinstance(choice, dict) else None
    if mode is None:
        raise invalid("tool_choice", "tool_choice is not of a known type")
    parallel = False if choice.get("disable_parallel_tool_use") is True else None
    name = choice.get("name")
    return msgspec.convert(
        {"mode": mode, "name": name if isinstance(name, str) else ""}, ir.ToolChoice
    ), parallel


def _take_sampling(rest: dict[str, Any]) -> ir.Sampling:
    def number(name: str) -> Any:
        return rest.pop(name) if type(rest.get(name)) in (int, float) else None

    stop = rest.pop("stop_sequences", None)
    return ir.Sampling(
        max_tokens=pop(rest, "max_tokens", int),
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=pop(rest, "top_k", int),
        stop=tuple(text for text in stop if isinstance(text, str))
        if isinstance(stop, list)
        else None,
    )


def _format(form: Any) -> ir.OutputFormat | None:
    match form:
        case {"type": "json_schema", "schema": dict(schema)}:
            return ir.OutputFormat("json_schema", schema, name="answer", strict=True)
    return None


def _take_reasoning(rest: dict[str, Any], config: dict[str, Any]) -> ir.Reasoning | None:
    thinking = rest.pop("thinking", None)
    match thinking:
        case {"type": "disabled"}:
            return ir.Reasoning(budget=0)
        case {"type": "enabled", "budget_tokens": int(budget)}:
            return ir.Reasoning(budget=budget)
    effort = config.get("effort")
    return ir.Reasoning(effort=effort) if isinstance(effort, str) else None
