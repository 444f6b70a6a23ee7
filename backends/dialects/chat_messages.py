"""The messages of an OpenAI chat request to the internal form and back, without loss."""

from __future__ import annotations

from typing import Any

from backends.dialects import ir
from backends.errors import InvalidValue, Untranslatable

DIALECT = "chat"
_CALL = "chat.tool_call"


def invalid(param: str, message: str) -> InvalidValue:
    return InvalidValue(message, code="invalid_value", param=param)


def pop(rest: dict[str, Any], key: str, kind: type) -> Any:
    """Take `rest[key]` out when its type is exactly `kind` (so that a bool is no int)."""
    value = rest.get(key)
    if type(value) is kind:
        del rest[key]
        return value
    return None


def decode_messages(
    messages: list[Any],
) -> tuple[tuple[ir.System, ...], tuple[ir.Turn, ...]]:
    system: list[ir.System] = []
    turns: list[ir.Turn] = []
    legacy_ids: dict[str, str] = {}
    for position, message in enumerate(messages):
        path = f"messages[{position}]"
        if not isinstance(message, dict):
            raise invalid(path, f"{path} must be an object")
        rest = dict(message)
        role = rest.pop("role", None)
        if role in ("system", "developer"):
            spelling: dict[str, str] = {}
            parts = _take_content(rest, path, spelling)
            system.append(ir.System(parts, position, role, spelling, rest))
        elif role == "user":
            spelling = {}
            parts = _take_content(rest, path, spelling)
            turns.append(ir.Turn("user", parts, position, spelling, rest))
        elif role == "assistant":
            turns.append(_decode_assistant(rest, position, legacy_ids))
        elif role in ("tool", "function"):
            turns.append(_decode_result(rest, role, position, legacy_ids))
        else:
            raise invalid(f"{path}.role", f"{path}.role is not a role this gateway knows")
    return tuple(system), tuple(turns)


def _take_content(
    rest: dict[str, Any], path: str, spelling: dict[str, str]
) -> tuple[ir.Content, ...]:
    if "content" not in rest:
        spelling["content"] = "absent"
        return ()
    content = rest.pop("content")
    if content is None:
        spelling["content"] = "null"
        return ()
    if isinstance(content, str):
        spelling["content"] = "string"
        return (ir.Text(content),)
    spelling["content"] = "parts"
    if not isinstance(content, list):
        raise invalid(f"{path}.content", f"{path}.content must be a string or a list of parts")
    return tuple(
        _decode_part(part, f"{path}.content[{index}]") for index, part in enumerate(content)
    )


def _decode_part(part: object, path: str) -> ir.Content:
    if not isinstance(part, dict):
        raise invalid(path, f"{path} must be an object")
    rest = dict(part)
    kind = rest.pop("type", None)
    if kind == "text" and isinstance(rest.get("text"), str):
        return ir.Text(rest.pop("text"), rest)
    if kind == "image_url" and isinstance(rest.get("image_url"), dict):
        inner = dict(rest.pop("image_url"))
        url = inner.pop("url", None)
        if isinstance(url, str):
            extras = {**rest, "image_url": inner} if inner else rest
            media_type, data = split_data_url(url)
            if media_type:
                return ir.Image(media_type=media_type, data=data, extras=extras)
            return ir.Image(url=url, extras=extras)
    if kind == "file" and isinstance(rest.get("file"), dict):
        inner = dict(rest.pop("file"))
        data_url = inner.get("file_data")
        media_type, data = split_data_url(data_url) if isinstance(data_url, str) else ("", "")
        if media_type:
            del inner["file_data"]
            name = pop(inner, "filename", str)
            extras = {**rest, "file": inner} if inner else rest
            return ir.Document(media_type=media_type, data=data, name=name, extras=extras)
    return ir.Opaque(DIALECT, part)


def split_data_url(url: str) -> tuple[str, str]:
    """Media type and base64 text of a `data:` URL; two empty strings when it is not one."""
    if not url.startswith("data:"):
        return "", ""
    head, comma, data = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or encoding != "base64" or not media_type:
        return "", ""
    return media_type, data


def _decode_assistant(rest: dict[str, Any], position: int, legacy_ids: dict[str, str]) -> ir.Turn:
    path = f"messages[{position}]"
    spelling: dict[str, str] = {}
    parts: list[ir.Part] = list(_take_thinking(rest, spelling))
    parts.extend(_take_content(rest, path, spelling))
    refusal = pop(rest, "refusal", str)
    if refusal is not None:
        parts.append(ir.Refusal(refusal))
    calls = rest.get("tool_calls")
    if isinstance(calls, list) and calls:
        del rest["tool_calls"]
        parts.extend(_decode_call(c, f"{path}.tool_calls[{i}]") for i, c in enumerate(calls))
    legacy = rest.get("function_call")
    if isinstance(legacy, dict) and set(legacy) == {"name", "arguments"}:
        name, arguments = legacy["name"], legacy["arguments"]
        if isinstance(name, str) and isinstance(arguments, str):
            del rest["function_call"]
            spelling["call"] = "function_call"
            legacy_ids[name] = f"call_function_{position}"
            parts.append(ir.ToolCall(legacy_ids[name], name, arguments))
    return ir.Turn("assistant", tuple(parts), position, spelling, rest)


def _take_thinking(rest: dict[str, Any], spelling: dict[str, str]) -> list[ir.Part]:
    blocks = rest.get("thinking_blocks")
    found: list[ir.Part] = []
    if isinstance(blocks, list) and blocks:
        for block in blocks:
            part = _thinking_block(block)
            if part is None:
                return []
            found.append(part)
        del rest["thinking_blocks"]
        spelling["reasoning"] = "blocks"
        return found
    text = pop(rest, "reasoning_content", str)
    if text is None:
        return []
    spelling["reasoning"] = "content"
    return [ir.Thinking(text)]


def _thinking_block(block: Any) -> ir.Thinking | ir.RedactedThinking | None:
    """The `index` that a stream has put in is left out: the order of the list says the same."""
    match block:
        case {"type": "thinking", "thinking": str(text), "signature": str(signature), **rest}:
            return ir.Thinking(text, signature) if rest.keys() <= {"index"} else None
        case {"type": "redacted_thinking", "data": str(data), **rest}:
            return ir.RedactedThinking(data) if rest.keys() <= {"index"} else None
    return None


def _decode_call(call: object, path: str) -> ir.ToolCall | ir.Opaque:
    if not isinstance(call, dict):
        raise invalid(path, f"{path} must be an object")
    rest = dict(call)
    function = rest.pop("function", None)
    if rest.pop("type", "function") != "function" or not isinstance(function, dict):
        return ir.Opaque(_CALL, call)
    inner = dict(function)
    name, arguments = inner.pop("name", None), inner.pop("arguments", None)
    call_id = rest.pop("id", None)
    if not (isinstance(name, str) and isinstance(arguments, str) and isinstance(call_id, str)):
        return ir.Opaque(_CALL, call)
    extras = {**rest, "function": inner} if inner else rest
    if "type" not in call:
        extras["type"] = None
    return ir.ToolCall(call_id, name, arguments, extras)


def _decode_result(
    rest: dict[str, Any], role: str, position: int, legacy_ids: dict[str, str]
) -> ir.Turn:
    path = f"messages[{position}]"
    spelling: dict[str, str] = {}
    parts = _take_content(rest, path, spelling)
    if role == "function":
        name = rest.get("name")
        if not isinstance(name, str):
            raise invalid(f"{path}.name", f"{path}.name must be the function's name")
        spelling["role"] = "function"
        call_id = legacy_ids.get(name, f"call_function_{name}")
    else:
        call_id = rest.pop("tool_call_id", None)
        if not isinstance(call_id, str):
            raise invalid(f"{path}.tool_call_id", f"{path}.tool_call_id must be a string")
    return ir.Turn("tool", (ir.ToolResult(call_id, parts),), position, spelling, rest)


def encode_messages(request: ir.Request) -> list[dict[str, Any]]:
    keep = request.dialect == DIALECT
    ordered: list[ir.System | ir.Turn] = sorted(
        [*request.system, *request.turns], key=lambda item: item.source
    )
    return [_encode_message(item, keep) for item in ordered]


def _encode_message(item: ir.System | ir.Turn, keep: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": item.role}
    parts: tuple[ir.Part, ...] = item.parts
    if item.role == "tool":
        result = parts[0]
        assert isinstance(result, ir.ToolResult)
        if item.spelling.get("role") == "function":
            message["role"] = "function"
        else:
            message["tool_call_id"] = result.call_id
        parts = result.parts
    _encode_content(parts, item.spelling, keep, message)
    if item.role == "assistant":
        _encode_thinking(parts, item.spelling, message)
        _encode_calls(parts, item.spelling, keep, message)
        for part in parts:
            if isinstance(part, ir.Refusal):
                message["refusal"] = part.text
    if keep:
        message.update(item.extras)
    return message


def _encode_content(
    parts: tuple[ir.Part, ...], spelling: dict[str, str], keep: bool, message: dict[str, Any]
) -> None:
    content = [
        part
        for part in parts
        if isinstance(part, ir.Text | ir.Image | ir.Document)
        or (isinstance(part, ir.Opaque) and part.dialect != _CALL)
    ]
    form = spelling.get("content")
    if form == "absent":
        return
    if form == "null" or (not content and form is None):
        message["content"] = None if message["role"] == "assistant" or form == "null" else ""
    elif form == "string" or (form is None and len(content) == 1):
        only = content[0]
        if isinstance(only, ir.Text) and not (keep and only.extras):
            message["content"] = only.text
            return
        message["content"] = [_encode_part(part, keep) for part in content]
    else:
        message["content"] = [_encode_part(part, keep) for part in content]


def _encode_part(part: ir.Content, keep: bool) -> dict[str, Any]:
    if isinstance(part, ir.Opaque):
        if part.dialect != DIALECT:
            raise Untranslatable(
                "a part of this message has no place in the chat dialect",
                code="unsupported_parameter",
                param="messages",
            )
        return part.value
    extras = part.extras if keep else {}
    if isinstance(part, ir.Text):
        return {"type": "text", "text": part.text, **extras}
    if isinstance(part, ir.Image):
        url = part.url or f"data:{part.media_type};base64,{part.data}"
        left = {k: v for k, v in extras.items() if k != "image_url"}
        inner = extras.get("image_url", {})
        return {"type": "image_url", "image_url": {"url": url, **inner}, **left}
    file: dict[str, Any] = {"file_data": f"data:{part.media_type};base64,{part.data}"}
    if part.name is not None:
        file["filename"] = part.name
    file.update(extras.get("file", {}))
    left = {k: v for k, v in extras.items() if k != "file"}
    return {"type": "file", "file": file, **left}


def _encode_thinking(
    parts: tuple[ir.Part, ...], spelling: dict[str, str], message: dict[str, Any]
) -> None:
    blocks = thinking_blocks(parts)
    text = "".join(part.text for part in parts if isinstance(part, ir.Thinking))
    form = spelling.get("reasoning")
    if form == "content" or (text and form is None):
        message["reasoning_content"] = text
    if blocks and form != "content":
        message["thinking_blocks"] = blocks


def thinking_blocks(parts: tuple[ir.Part, ...]) -> list[dict[str, Any]]:
    """Signed and redacted reasoning as the extension that clients hand back unchanged."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, ir.Thinking):
            blocks.append({"type": "thinking", "thinking": part.text, "signature": part.signature})
        elif isinstance(part, ir.RedactedThinking):
            blocks.append({"type": "redacted_thinking", "data": part.data})
    return blocks


def _encode_calls(
    parts: tuple[ir.Part, ...], spelling: dict[str, str], keep: bool, message: dict[str, Any]
) -> None:
    calls: list[dict[str, Any]] = []
    legacy = spelling.get("call") == "function_call"
    last = max((i for i, p in enumerate(parts) if isinstance(p, ir.ToolCall)), default=-1)
    for index, part in enumerate(parts):
        if isinstance(part, ir.Opaque) and part.dialect == _CALL:
            calls.append(part.value)
        elif isinstance(part, ir.ToolCall):
            if legacy and index == last:
                message["function_call"] = {"name": part.name, "arguments": part.arguments}
                continue
            calls.append(_encode_call(part, keep))
    if calls:
        message["tool_calls"] = calls


def _encode_call(call: ir.ToolCall, keep: bool) -> dict[str, Any]:
    extras = dict(call.extras) if keep else {}
    function = {"name": call.name, "arguments": call.arguments, **extras.pop("function", {})}
    encoded: dict[str, Any] = {"id": call.id, "type": "function", "function": function}
    if "type" in extras:
        del extras["type"], encoded["type"]
    return {**encoded, **extras}
