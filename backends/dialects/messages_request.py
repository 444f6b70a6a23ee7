"""The internal form to an Anthropic messages request.

Each field is mapped, or dropped and named in `Encoded.dropped`, or refused; never silently
changed. Instructions in the middle of a conversation are hoisted into `system`, in order: there
they keep the authority that a user text would lose.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from backends.dialects import ir
from backends.dialects.messages_turns import encode_system, encode_turns, thinking_fits
from backends.dialects.report import Report
from backends.profiles import UNKNOWN, Profile

JSON_TOOL = "json_output"
MIN_BUDGET = 1024
NO_SAMPLING_SINCE = "2026-10-21"
"""From this version of the API on, temperature, top_p and top_k are refused for every model."""

_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576}
_MAX_BUDGET = 32_000
_EFFORT_ORDER = ("low", "medium", "high", "xhigh", "max")
# What a field says when it asks for nothing that this API would not do anyway.
_NO_MEANING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "store": (False,),
    "tools": ([],),
    "functions": ([],),
    "service_tier": ("auto", "default"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "logit_bias": ({},),
}
# Their meaning would be lost, or their type is wrong: dropping them would change the answer.
_REFUSED = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "web_search_options",
    }
)


class Target(msgspec.Struct, frozen=True):
    """Where the request goes. `user_salt` keys the hash of the end user's name."""

    model: str
    profile: Profile = UNKNOWN
    drop_params: bool = False
    user_salt: bytes = b""
    api_version: str = "2023-06-01"


class Encoded(msgspec.Struct, frozen=True):
    """A messages body. `json_tool`: the answer must be unwrapped from the call of `JSON_TOOL`.
    `legacy`: the client asked with `functions` and expects `function_call` back."""

    body: dict[str, Any]
    dropped: tuple[str, ...] = ()
    json_tool: bool = False
    legacy: bool = False


def encode_request(request: ir.Request, target: Target) -> Encoded:
    """Raises Untranslatable or InvalidValue, naming the field as the client wrote it."""
    report = Report(target.drop_params)
    _check_extras(request, report)
    body: dict[str, Any] = {"model": target.model, "max_tokens": _max_tokens(request, target)}
    system = encode_system(request, report)
    if system:
        body["system"] = system
    body["messages"] = encode_turns(request, report)
    json_tool = _put_tools(request, target, body, report)
    _put_thinking(request, target, body, report)
    _put_sampling(request, target, body, report)
    if request.stream:
        body["stream"] = True
    if request.user:
        digest = hashlib.blake2b(request.user.encode(), digest_size=16, key=target.user_salt[:64])
        body["metadata"] = {"user_id": digest.hexdigest()}
    return Encoded(
        body=body,
        dropped=report.dropped,
        json_tool=json_tool,
        legacy=_is_legacy(request),
    )


def _is_legacy(request: ir.Request) -> bool:
    return request.spelling.get("tools") == "functions"


def _check_extras(request: ir.Request, report: Report) -> None:
    for name, value in request.extras.items():
        if value is None or name == "stream_options" or value in _NO_MEANING.get(name, ()):
            continue
        if name == "max_tokens" and request.sampling.max_tokens is not None:
            continue
        if name in ("max_tokens", "messages", "model"):
            report.invalid(name, f"{name} has the wrong type")
        elif name in _REFUSED:
            report.refuse(name, f"{name} cannot be carried to this model's API")
        else:
            report.drop(name)


def _max_tokens(request: ir.Request, target: Target) -> int:
    asked = request.sampling.max_tokens
    if asked is None:
        return target.profile.max_output or 4096
    if asked < 1:
        name = request.spelling.get("max_tokens", "max_tokens")
        Report(False).invalid(name, f"{name} must be at least 1")
    return asked


# -- tools and output format --------------------------------------------------------------------


def _put_tools(request: ir.Request, target: Target, body: dict[str, Any], report: Report) -> bool:
    tools = [_encode_tool(tool, target, report) for tool in _offered(request)]
    choice = _choice(request, target, report)
    schema = _json_tool_schema(request, target, body, report)
    if schema is not None:
        if choice is None or choice["type"] in ("auto", "none"):
            offered = tools and (choice is None or choice["type"] == "auto")
            choice = {"type": "any"} if offered else {"type": "tool", "name": JSON_TOOL}
        tools.append(
            {
                "name": JSON_TOOL,
                "description": "Give the answer to the user by calling this tool.",
                "input_schema": schema,
            }
        )
    # `function_call` has room for one.
    one_at_a_time = request.parallel_tools is False or _is_legacy(request)
    if one_at_a_time and tools:
        choice = dict(choice) if choice is not None else {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
    elif choice is not None and choice["type"] in ("any", "tool"):
        report.invalid("tool_choice", "tool_choice asks for a tool, and there are no tools")
    return schema is not None


def _offered(request: ir.Request) -> tuple[ir.Tool, ...]:
    choice = request.tool_choice
    if choice is None or choice.mode != "allowed":
        return request.tools
    return tuple(tool for tool in request.tools if tool.name in choice.names)


def _encode_tool(tool: ir.Tool, target: Target, report: Report) -> dict[str, Any]:
    encoded: dict[str, Any] = {"name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    parameters = tool.parameters
    if not parameters:
        parameters = {"type": "object", "properties": {}}
    elif "type" not in parameters:
        parameters = {"type": "object", **parameters}
    encoded["input_schema"] = parameters
    if tool.strict:
        if "json_schema" in target.profile.capabilities:
            encoded["strict"] = True
        else:
            report.drop("tools.function.strict")
    extras = tool.extras.get("tool", {})
    if isinstance(extras.get("cache_control"), dict):
        encoded["cache_control"] = {"type": "ephemeral"}
    return encoded


def _choice(request: ir.Request, target: Target, report: Report) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    forced = choice.mode in ("required", "tool") or (choice.mode == "allowed" and choice.forced)
    if forced and not target.profile.forced_tools:
        report.refuse("tool_choice", "this model does not let a tool be forced")
        return None
    if choice.mode == "tool":
        return {"type": "tool", "name": choice.name}
    if choice.mode == "none":
        return {"type": "none"} if request.tools else None
    if forced:
        return {"type": "any"}
    return {"type": "auto"} if request.tools else None


def _json_tool_schema(
    request: ir.Request, target: Target, body: dict[str, Any], report: Report
) -> dict[str, Any] | None:
    """The input schema of the forced tool, or None when no such tool is needed."""
    want = request.output_format
    if want is None or want.kind == "text":
        return None
    schema = want.schema if want.schema is not None else {"type": "object"}
    if want.kind == "json_schema" and "json_schema" in target.profile.capabilities:
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
        return None
    if not target.profile.forced_tools:
        report.refuse("response_format", "this model takes a JSON schema only")
        return None
    if schema.get("type", "object") != "object":
        report.refuse(
            "response_format.json_schema.schema", "this model's API takes an object at the root"
        )
        return None
    return {"type": "object", **schema}


# -- reasoning and sampling ---------------------------------------------------------------------


def _put_thinking(
    request: ir.Request, target: Target, body: dict[str, Any], report: Report
) -> None:
    want = request.reasoning or ir.Reasoning()
    field = "thinking" if request.spelling.get("reasoning") == "thinking" else "reasoning_effort"
    profile = target.profile
    off = want.effort == "none" or want.budget == 0
    asked = not off and want != ir.Reasoning()
    if profile.thinking == "adaptive":
        # These think unless told not to, and a forced tool does not go with thinking.
        if off or _forced(body):
            _switch_off(profile, body, report, field if asked or off else None)
        elif asked:
            body["thinking"] = {"type": "adaptive"}
    if not asked:
        return
    if not profile.thinking:
        report.drop(field)
    elif profile.thinking == "budget" or (profile.thinking == "effort" and want.budget):
        _put_budget(request, want, body, report, field)
    else:
        effort = _nearest_effort(_effort_word(want), profile)
        if effort in ("xhigh", "max") and body.get("thinking") == {"type": "disabled"}:
            effort = "high"
        if effort != want.effort:
            report.drop(field)
        body.setdefault("output_config", {})["effort"] = effort


def _forced(body: dict[str, Any]) -> bool:
    return body.get("tool_choice", {}).get("type") in ("any", "tool")


def _switch_off(profile: Profile, body: dict[str, Any], report: Report, field: str | None) -> None:
    if profile.thinking_off:
        body["thinking"] = {"type": profile.thinking_off}
    if field is not None and (not profile.thinking_off or _forced(body)):
        report.drop(field)


def _effort_word(want: ir.Reasoning) -> str:
    if want.effort is not None:
        return "low" if want.effort == "minimal" else want.effort
    budget = want.budget or 0
    return "low" if budget <= 4096 else "medium" if budget <= 12_000 else "high"


def _nearest_effort(word: str, profile: Profile) -> str:
    """The strongest effort the model has that is not above the one asked for."""
    rank = _EFFORT_ORDER.index(word)
    return max(
        (effort for effort in profile.efforts if _EFFORT_ORDER.index(effort) <= rank),
        key=_EFFORT_ORDER.index,
        default=profile.efforts[0],
    )


def _put_budget(
    request: ir.Request, want: ir.Reasoning, body: dict[str, Any], report: Report, field: str
) -> None:
    ceiling = body["max_tokens"]
    if ceiling <= MIN_BUDGET or _forced(body) or not thinking_fits(request):
        report.drop(field)
        return
    budget = want.budget or _BUDGETS.get(want.effort or "", _MAX_BUDGET)
    # Half of the allowance stays for the answer itself.
    budget = max(MIN_BUDGET, min(budget, ceiling // 2))
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _put_sampling(
    request: ir.Request, target: Target, body: dict[str, Any], report: Report
) -> None:
    sampling = request.sampling
    taken = target.profile.sampling
    if target.api_version >= NO_SAMPLING_SINCE:
        taken = "none"
    thinking = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    for name, value in (
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
    ):
        if value is None:
            continue
        if name == "temperature" and not 0 <= value <= 1:
            report.refuse(name, "temperature must be between 0 and 1 for this model")
        elif taken == "none":
            # The default needs no words; anything else cannot be asked of these models.
            if name == "top_k" or value != 1:
                report.drop(name)
        elif (thinking and (name != "top_p" or value < 0.95)) or (
            taken == "one" and name == "top_p" and "temperature" in body
        ):
            if value != 1:
                report.drop(name)
        else:
            body[name] = value
    stop = [text for text in sampling.stop or () if text.strip()]
    if len(stop) < len(sampling.stop or ()):
        # White space by itself is refused.
        report.drop("stop")
    if stop:
        body["stop_sequences"] = stop
    tier = request.extras.get("service_tier")
    if tier in ("auto", "default"):
        body["service_tier"] = "auto" if tier == "auto" else "standard_only"
