"""OpenAI chat requests to the internal form and back, without loss.

A decoder takes from each object the fields it knows and whose type is right; whatever is left
(unknown keys, nulls, odd types) stays in `extras` and returns unchanged on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.dialects import ir
from backends.dialects.chat_messages import (
    DIALECT,
    decode_messages,
    encode_messages,
    invalid,
    pop,
)

_CHOICE_MODES = ("auto", "none", "required")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def decode_request(body: Mapping[str, Any]) -> ir.Request:
    """Raises InvalidValue, naming the field, for a body without usable messages."""
    rest = dict(body)
    spelling: dict[str, str] = {}
    messages = rest.pop("messages", None)
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "messages must be a non-empty list")
    system, turns = decode_messages(messages)
    tools = _take_tools(rest, spelling)
    model = pop(rest, "model", str) or ""
    return ir.Request(
        dialect=DIALECT,
        model=model,
        system=system,
        turns=turns,
        tools=tools,
        tool_choice=_take_tool_choice(rest, spelling),
        parallel_tools=pop(rest, "parallel_tool_calls", bool),
        sampling=_take_sampling(rest, spelling),
        output_format=_take_format(rest),
        reasoning=_take_reasoning(rest, spelling),
        user=_take_user(rest, spelling),
        stream=pop(rest, "stream", bool),
        spelling=spelling,
        extras=rest,
    )


def encode_request(request: ir.Request) -> dict[str, Any]:
    """A chat body. Fields that are not set are left out."""
    body: dict[str, Any] = {"messages": encode_messages(request)}
    if request.model:
        body["model"] = request.model
    _encode_tools(request, body)
    _encode_sampling(request, body)
    if request.parallel_tools is not None:
        body["parallel_tool_calls"] = request.parallel_tools
    if request.output_format is not None:
        body["response_format"] = _encode_format(request.output_format)
    if request.reasoning is not None:
        _encode_reasoning(request, request.reasoning, body)
    if request.user is not None:
        body[request.spelling.get("user", "user")] = request.user
    if request.stream is not None:
        body["stream"] = request.stream
    if request.dialect == DIALECT:
        body.update(request.extras)
    return body


# -- fields beside the messages ---------------------------------------------------------------


def _pop_number(rest: dict[str, Any], key: str) -> Any:
    return rest.pop(key) if type(rest.get(key)) in (int, float) else None


def _take_sampling(rest: dict[str, Any], spelling: dict[str, str]) -> ir.Sampling:
    max_tokens = None
    for name in ("max_completion_tokens", "max_tokens"):
        if type(rest.get(name)) is int:
            max_tokens = rest.pop(name)
            spelling["max_tokens"] = name
            break
    stop: tuple[str, ...] | None = None
    value = rest.get("stop")
    if isinstance(value, str):
        stop, spelling["stop"] = (rest.pop("stop"),), "string"
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        stop = tuple(rest.pop("stop"))
    return ir.Sampling(
        max_tokens=max_tokens,
        temperature=_pop_number(rest, "temperature"),
        top_p=_pop_number(rest, "top_p"),
        top_k=pop(rest, "top_k", int),
        stop=stop,
    )


def _encode_sampling(request: ir.Request, body: dict[str, Any]) -> None:
    sampling = request.sampling
    if sampling.max_tokens is not None:
        body[request.spelling.get("max_tokens", "max_tokens")] = sampling.max_tokens
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    if sampling.stop is not None:
        stop = list(sampling.stop)
        body["stop"] = stop[0] if request.spelling.get("stop") == "string" else stop


def _take_user(rest: dict[str, Any], spelling: dict[str, str]) -> str | None:
    for name in ("safety_identifier", "user"):
        value = pop(rest, name, str)
        if value is not None:
            spelling["user"] = name
            return str(value)
    return None


def _take_reasoning(rest: dict[str, Any], spelling: dict[str, str]) -> ir.Reasoning | None:
    effort = rest.get("reasoning_effort")
    if isinstance(effort, str) and effort in _EFFORTS:
        del rest["reasoning_effort"]
        return ir.Reasoning(effort=effort)
    thinking = rest.get("thinking")
    if not isinstance(thinking, dict):
        return None
    if thinking == {"type": "disabled"}:
        budget = 0
    elif set(thinking) == {"type", "budget_tokens"} and thinking["type"] == "enabled":
        budget = thinking["budget_tokens"]
        if type(budget) is not int or budget <= 0:
            return None
    else:
        return None
    del rest["thinking"]
    spelling["reasoning"] = "thinking"
    return ir.Reasoning(budget=budget)


def _encode_reasoning(request: ir.Request, want: ir.Reasoning, body: dict[str, Any]) -> None:
    if want.effort is not None:
        body["reasoning_effort"] = want.effort
    elif request.spelling.get("reasoning") == "thinking":
        body["thinking"] = (
            {"type": "enabled", "budget_tokens": want.budget}
            if want.budget
            else {"type": "disabled"}
        )
    elif want.budget is not None:
        body["reasoning_effort"] = effort_of_budget(want.budget)


def effort_of_budget(budget: int) -> str:
    """The effort word nearest to a budget in tokens."""
    for word, most in (("none", 0), ("low", 4096), ("medium", 12_000)):
        if budget <= most:
            return word
    return "high"


def _take_format(rest: dict[str, Any]) -> ir.OutputFormat | None:
    value = rest.get("response_format")
    if not isinstance(value, dict):
        return None
    if value in ({"type": "text"}, {"type": "json_object"}):
        del rest["response_format"]
        return ir.OutputFormat(kind=value["type"])
    inner = value.get("json_schema")
    if set(value) != {"type", "json_schema"} or value["type"] != "json_schema":
        return None
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        return None
    del rest["response_format"]
    left = dict(inner)
    return ir.OutputFormat(
        kind="json_schema",
        schema=left.pop("schema"),
        name=pop(left, "name", str),
        strict=pop(left, "strict", bool),
        extras=left,
    )


def _encode_format(want: ir.OutputFormat) -> dict[str, Any]:
    if want.kind != "json_schema":
        return {"type": want.kind}
    inner: dict[str, Any] = {"schema": want.schema, **want.extras}
    if want.name is not None:
        inner["name"] = want.name
    if want.strict is not None:
        inner["strict"] = want.strict
    return {"type": "json_schema", "json_schema": inner}


def _take_tools(rest: dict[str, Any], spelling: dict[str, str]) -> tuple[ir.Tool, ...]:
    for field, legacy in (("tools", False), ("functions", True)):
        value = rest.get(field)
        if not isinstance(value, list) or not value:
            continue
        tools = [_decode_tool(item, legacy) for item in value]
        if any(tool is None for tool in tools):
            return ()
        del rest[field]
        if legacy:
            spelling["tools"] = "functions"
        return tuple(tool for tool in tools if tool is not None)
    return ()


def _decode_tool(item: object, legacy: bool) -> ir.Tool | None:
    if not isinstance(item, dict):
        return None
    outer = dict(item)
    if legacy:
        function: Any = outer
        outer = {}
    else:
        function = outer.pop("function", None)
        if outer.pop("type", None) != "function":
            return None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    inner = dict(function)
    return ir.Tool(
        name=inner.pop("name"),
        description=pop(inner, "description", str),
        parameters=pop(inner, "parameters", dict),
        strict=pop(inner, "strict", bool),
        extras={"tool": outer, "function": inner} if outer or inner else {},
    )


def _encode_tools(request: ir.Request, body: dict[str, Any]) -> None:
    legacy = request.spelling.get("tools") == "functions"
    keep = request.dialect == DIALECT
    tools = [_encode_tool(tool, legacy, keep) for tool in request.tools]
    if tools:
        body["functions" if legacy else "tools"] = tools
    choice = request.tool_choice
    if choice is None:
        return
    if request.spelling.get("tool_choice") == "function_call":
        body["function_call"] = {"name": choice.name} if choice.mode == "tool" else choice.mode
    elif choice.mode == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode == "allowed":
        body["tool_choice"] = {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required" if choice.forced else "auto",
                "tools": [{"type": "function", "function": {"name": n}} for n in choice.names],
            },
        }
    else:
        body["tool_choice"] = choice.mode


def _encode_tool(tool: ir.Tool, legacy: bool, keep: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    if keep:
        function.update(tool.extras.get("function", {}))
    if legacy:
        return function
    outer = tool.extras.get("tool", {}) if keep else {}
    return {"type": "function", "function": function, **outer}


def _take_tool_choice(rest: dict[str, Any], spelling: dict[str, str]) -> ir.ToolChoice | None:
    legacy = rest.get("function_call")
    if "tool_choice" not in rest and legacy is not None:
        choice = _legacy_choice(legacy)
        if choice is not None:
            del rest["function_call"]
            spelling["tool_choice"] = "function_call"
        return choice
    value = rest.get("tool_choice")
    choice = _decode_choice(value)
    if choice is not None:
        del rest["tool_choice"]
    return choice


def _legacy_choice(value: object) -> ir.ToolChoice | None:
    if value == "auto" or value == "none":
        return ir.ToolChoice(mode="auto" if value == "auto" else "none")
    if isinstance(value, dict) and set(value) == {"name"} and isinstance(value["name"], str):
        return ir.ToolChoice(mode="tool", name=value["name"])
    return None


def _function_name(value: object) -> str | None:
    if not isinstance(value, dict) or set(value) != {"type", "function"}:
        return None
    function = value["function"]
    if value["type"] != "function" or not isinstance(function, dict) or set(function) != {"name"}:
        return None
    return function["name"] if isinstance(function["name"], str) else None


def _decode_choice(value: object) -> ir.ToolChoice | None:
    if isinstance(value, str):
        return ir.ToolChoice(mode=value) if value in _CHOICE_MODES else None  # type: ignore[arg-type]  # checked against the literal's values
    name = _function_name(value)
    if name is not None:
        return ir.ToolChoice(mode="tool", name=name)
    if not isinstance(value, dict) or set(value) != {"type", "allowed_tools"}:
        return None
    inner = value["allowed_tools"]
    if value["type"] != "allowed_tools" or not isinstance(inner, dict):
        return None
    if set(inner) != {"mode", "tools"} or inner["mode"] not in ("auto", "required"):
        return None
    if not isinstance(inner["tools"], list):
        return None
    names = [_function_name(item) for item in inner["tools"]]
    if None in names:
        return None
    return ir.ToolChoice(
        mode="allowed",
        names=tuple(name for name in names if name is not None),
        forced=inner["mode"] == "required",
    )
