"""Conversation turns of the internal form as Anthropic messages.

Neighbouring turns of one role become one message; tool results come first in the user message
that follows their calls; empty texts are left out, because the API refuses them.
"""

from __future__ import annotations

import base64
import re
from hashlib import blake2b
from typing import Any

import msgspec

from backends.dialects import ir
from backends.dialects.report import Report
from backends.errors import InvalidValue, Untranslatable

_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_MISSPELT_TYPES = {"image/jpg": "image/jpeg"}
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_DECODER = msgspec.json.Decoder()

Block = dict[str, Any]


def encode_system(request: ir.Request, report: Report) -> list[Block]:
    blocks: list[Block] = []
    for item in request.system:
        path = f"messages[{item.source}].content"
        _drop_extras(item.extras, report)
        for index, part in enumerate(item.parts):
            if not isinstance(part, ir.Text):
                report.refuse(f"{path}[{index}]", "an instruction can hold text only")
            elif part.text.strip():
                blocks.append(_text_block(part))
    return blocks


def encode_turns(request: ir.Request, report: Report) -> list[Block]:
    """Raises Untranslatable when no message is left, InvalidValue when a tool result answers no
    call."""
    messages: list[Block] = []
    pending: set[str] = set()
    for turn in request.turns:
        _drop_extras(turn.extras, report)
        path = f"messages[{turn.source}]"
        if turn.role == "assistant":
            blocks = _assistant_blocks(turn, path, report)
            calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
            continued = messages and messages[-1]["role"] == "assistant"
            pending = pending | calls if continued else calls
            _append(messages, "assistant", blocks)
        elif turn.role == "tool":
            _append_result(messages, _result_block(turn, path, pending, report))
        else:
            _append(messages, "user", _content_blocks(turn.parts, path, report))
    if not messages:
        raise Untranslatable(
            "this model's API needs at least one message of a user with content",
            code="unsupported_parameter",
            param="messages",
        )
    _strip_prefill(messages)
    return messages


def thinking_fits(request: ir.Request) -> bool:
    """False inside a tool loop whose call came without signed reasoning: the API would refuse
    to think on."""
    if not request.turns or request.turns[-1].role != "tool":
        return True
    for turn in reversed(request.turns):
        if turn.role == "assistant":
            return any(
                isinstance(part, ir.RedactedThinking)
                or (isinstance(part, ir.Thinking) and part.signature)
                for part in turn.parts
            )
    return True


def _append(messages: list[Block], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"].extend(blocks)
    else:
        messages.append({"role": role, "content": blocks})


def _append_result(messages: list[Block], block: Block) -> None:
    if not messages or messages[-1]["role"] != "user":
        messages.append({"role": "user", "content": [block]})
        return
    content = messages[-1]["content"]
    at = sum(1 for existing in content if existing["type"] == "tool_result")
    content.insert(at, block)


def _strip_prefill(messages: list[Block]) -> None:
    last = messages[-1]
    if last["role"] != "assistant" or last["content"][-1]["type"] != "text":
        return
    block = last["content"][-1]
    last["content"][-1] = {**block, "text": block["text"].rstrip()}


def _drop_extras(extras: dict[str, Any], report: Report) -> None:
    for name, value in extras.items():
        if value in (None, [], ""):
            continue
        if name in ("audio", "function_call", "tool_calls"):
            report.refuse(f"messages.{name}", f"{name} of a message cannot be carried")
        else:
            report.drop(f"messages.{name}")


def _text_block(part: ir.Text) -> Block:
    return _cached({"type": "text", "text": part.text}, part.extras)


def _cached(block: Block, extras: dict[str, Any]) -> Block:
    # Always the default lifetime: writes for one hour have another price.
    if isinstance(extras.get("cache_control"), dict):
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _content_blocks(parts: tuple[ir.Part, ...], path: str, report: Report) -> list[Block]:
    blocks: list[Block] = []
    for index, part in enumerate(parts):
        blocks.extend(_content_block(part, f"{path}.content[{index}]", report))
    return blocks


def _content_block(part: ir.Part, where: str, report: Report) -> list[Block]:
    """One block or none."""
    if isinstance(part, ir.Text):
        return [_text_block(part)] if part.text.strip() else []
    if isinstance(part, ir.Image):
        return _image_block(part, where, report)
    if isinstance(part, ir.Document):
        return _document_block(part, where, report)
    if isinstance(part, ir.Opaque):
        return _opaque_block(part, where, report)
    return []


def _image_block(part: ir.Image, where: str, report: Report) -> list[Block]:
    if isinstance(part.extras.get("image_url"), dict) and "detail" in part.extras["image_url"]:
        report.drop("image_url.detail")
    if part.data:
        if part.media_type == "application/pdf":
            return _document_block(ir.Document(part.media_type, part.data), where, report)
        media_type = part.media_type.lower()
        media_type = _MISSPELT_TYPES.get(media_type, media_type)
        if media_type in _IMAGE_TYPES:
            source = {"type": "base64", "media_type": media_type, "data": part.data}
            return [_cached({"type": "image", "source": source}, part.extras)]
        report.refuse(f"{where}.image_url.url", f"images of type {part.media_type} are not taken")
        return []
    if part.url.startswith(("http://", "https://")):
        # By reference: the provider opens it, the gateway never does.
        return [_cached({"type": "image", "source": {"type": "url", "url": part.url}}, part.extras)]
    report.refuse(f"{where}.image_url.url", "an image is an http(s) URL or a base64 data URL")
    return []


def _document_block(part: ir.Document, where: str, report: Report) -> list[Block]:
    if part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    elif part.media_type == "text/plain":
        try:
            text = _decode_text(part.data)
        except ValueError:
            report.invalid(f"{where}.file.file_data", "the file is not base64 of UTF-8 text")
            return []
        source = {"type": "text", "media_type": part.media_type, "data": text}
    else:
        report.refuse(f"{where}.file.file_data", f"files of type {part.media_type} are not taken")
        return []
    block: Block = {"type": "document", "source": source}
    if part.name:
        block["title"] = part.name
    return [_cached(block, part.extras)]


def _decode_text(data: str) -> str:
    return base64.b64decode(data, validate=True).decode()


def _opaque_block(part: ir.Opaque, where: str, report: Report) -> list[Block]:
    if part.dialect == "messages":
        return [part.value]
    kind = part.value.get("type")
    if kind == "refusal" and isinstance(part.value.get("refusal"), str):
        return _content_block(ir.Text(part.value["refusal"]), where, report)
    if kind == "thinking":
        # Another provider's, as `reasoning_content` is.
        report.drop("messages.content.thinking")
        return []
    name = kind if isinstance(kind, str) and kind.isidentifier() else "type"
    report.refuse(f"{where}.{name}", "this kind of content cannot be carried to this model's API")
    return []


def _assistant_blocks(turn: ir.Turn, path: str, report: Report) -> list[Block]:
    blocks: list[Block] = []
    calls = 0
    for index, part in enumerate(turn.parts):
        if isinstance(part, ir.Thinking):
            if part.signature:
                blocks.append(
                    {"type": "thinking", "thinking": part.text, "signature": part.signature}
                )
            else:
                # Unsigned reasoning is another provider's: this one would refuse it.
                report.drop("messages.reasoning_content")
        elif isinstance(part, ir.RedactedThinking):
            blocks.append({"type": "redacted_thinking", "data": part.data})
        elif isinstance(part, ir.Refusal):
            if part.text.strip():
                blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, ir.ToolCall):
            blocks.append(_call_block(part, f"{path}.tool_calls[{calls}]"))
            calls += 1
        else:
            blocks.extend(_content_block(part, f"{path}.content[{index}]", report))
    return blocks


def _call_block(call: ir.ToolCall, where: str) -> Block:
    return {
        "type": "tool_use",
        "id": _call_id(call.id),
        "name": call.name,
        "input": parse_arguments(call.arguments, where),
    }


def _call_id(given: str) -> str:
    """The id of a call, made to fit where this API refuses another's: the same in the same way, so
    that a call and its result still meet."""
    if _CALL_ID.fullmatch(given):
        return given
    return "call_" + blake2b(given.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def parse_arguments(arguments: str, where: str) -> dict[str, Any]:
    """Raises InvalidValue at `where` unless the text is empty, `null` (as some engines write a call
    without arguments) or a JSON object."""
    if not arguments.strip():
        return {}
    field = f"{where}.function.arguments"
    try:
        value = _DECODER.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise InvalidValue(
            "the arguments of a tool call are not valid JSON", code="invalid_value", param=field
        ) from exc
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidValue(
            "the arguments of a tool call are not a JSON object", code="invalid_value", param=field
        )
    return value


def _result_block(turn: ir.Turn, path: str, pending: set[str], report: Report) -> Block:
    result = turn.parts[0]
    assert isinstance(result, ir.ToolResult)
    call_id = _call_id(result.call_id)
    if call_id not in pending:
        report.invalid(
            f"{path}.tool_call_id", "this tool result answers no call of the message before it"
        )
    blocks = _content_blocks(result.parts, path, report)
    block: Block = {"type": "tool_result", "tool_use_id": call_id}
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        block["content"] = blocks[0]["text"]
    elif blocks:
        block["content"] = blocks
    if result.is_error:
        block["is_error"] = True
    return block
