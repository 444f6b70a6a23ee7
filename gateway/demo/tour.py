"""The requests of the tour, and what each must show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

HARD = (
    "Let R be a commutative ring with identity in which every ideal is principal. Prove that every "
    "nonzero prime ideal of R is maximal when R is an integral domain."
)
CODE = (
    "Write a Python function that merges two sorted linked lists and returns the head. "
    "Give its time complexity."
)
GERMAN = "Bitte fasse den Vertrag mit unserem Lieferanten in zwei Sätzen zusammen."
CLINICAL = (
    "Patient presents with chest pain, DOB 03/12/1961, MRN 445566. Prescribed metoprolol 50 mg. "
    "Summarise for the discharge letter."
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Seen(msgspec.Struct):
    """What came back. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: Any
    text: str = ""
    chunks: int = 0

    def header(self, name: str) -> str:
        return self.headers.get(f"x-tollhouse-{name}", "")


class Step(msgspec.Struct, frozen=True):
    """`expect` returns what is wrong, or an empty string. `key` picks the client key."""

    title: str
    body: dict[str, Any]
    expect: Callable[[Seen], str]
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    key: str = "main"


def chat(text: str, model: str = "auto", **more: Any) -> dict[str, Any]:
    more.setdefault("max_tokens", 48)
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def went(**wanted: str) -> Callable[[Seen], str]:
    """The answer is a 200 whose x-tollhouse headers have these values."""

    def check(seen: Seen) -> str:
        if seen.status != 200:
            return f"status {seen.status}: {seen.text[:200]}"
        for name, value in wanted.items():
            if seen.header(name) != value:
                return f"{name} is {seen.header(name)!r}, expected {value!r}"
        return ""

    return check


def called_tool(seen: Seen) -> str:
    if seen.status != 200:
        return f"status {seen.status}: {seen.text[:200]}"
    calls = seen.body["choices"][0]["message"].get("tool_calls") or []
    if not calls or calls[0]["function"]["name"] != "get_weather":
        return "the model did not call get_weather"
    return went(tier="local")(seen)


def streamed(seen: Seen) -> str:
    if seen.chunks < 3:
        return f"only {seen.chunks} chunks"
    return went(tier="local")(seen)


def refused_for_residency(seen: Seen) -> str:
    code = (seen.body or {}).get("error", {}).get("code")
    if seen.status != 403 or code != "residency_not_available":
        return f"status {seen.status}, code {code}"
    return ""


def embedded(seen: Seen) -> str:
    if seen.status == 200 and len(seen.body["data"][0]["embedding"]) < 8:
        return "no vector"
    return went(tier="local")(seen)


def steps(frontier: str) -> tuple[Step, ...]:
    """`frontier` is the id of the frontier candidate, `backend/model`."""
    labelled = {"x-tollhouse-residency": "eu"}
    return (
        Step("easy: a greeting", chat("Hello!"), went(tier="local")),
        Step("hard: a proof", chat(HARD), went(tier="frontier", cache="miss")),
        Step("code", chat(CODE), went()),
        Step(
            "tool call",
            chat("What is the weather in Paris?", "local/tiny", tools=[WEATHER], temperature=0),
            called_tool,
        ),
        Step(
            "streaming",
            chat("Count to five.", "local/tiny", stream=True, temperature=0),
            streamed,
        ),
        Step("German text, labelled eu", chat(GERMAN), went(tier="local"), headers=labelled),
        Step("clinical text, found to be phi", chat(CLINICAL), went(tier="local")),
        Step("the proof again", chat(HARD), went(tier="frontier", cache="hit")),
        Step(
            "hard, but the budget is spent",
            chat("A new question. " + HARD),
            went(tier="local", reason="budget"),
            key="poor",
        ),
        Step(
            "frontier by name, labelled eu",
            chat("Hello!", frontier),
            refused_for_residency,
            headers=labelled,
        ),
        Step("explicit model name", chat("Hi there!", "local/tiny"), went(reason="explicit")),
        Step(
            "Anthropic-dialect upstream",
            chat("Good morning!", "local-messages/tiny"),
            went(backend="local-messages"),
        ),
        Step(
            "embeddings",
            {"model": "local/tiny", "input": "a short text"},
            embedded,
            path="/v1/embeddings",
        ),
    )
