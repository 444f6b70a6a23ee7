"""Synthetic dialogues that teach the tiny model its few tricks.

Everything here is plain data and arithmetic: no torch, no tokenizer, no I/O. A dialogue is a list
of OpenAI chat messages plus the tools offered; `sample` draws one from a seeded generator.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from backends.local.phrases import (
    ALIASES,
    CITIES,
    CITY_KEYS,
    COLORS,
    FACTS,
    FALLBACK,
    GERMAN,
    GREETING,
    GREETINGS,
    NAMES,
    NUMBERS,
    REPEAT_PROMPTS,
    SKIES,
    STORY,
    STORY_PROMPTS,
    SYSTEM_PROMPTS,
    TOOL_USES,
    UNICODE,
    UNKNOWN_PROMPTS,
    WORDS,
)

Message = dict[str, Any]
Tool = dict[str, Any]


class Dialogue(NamedTuple):
    """One training conversation: chat messages (the last from the assistant) and its tools."""

    messages: list[Message]
    tools: list[Tool]


def user(text: str) -> Message:
    """A user message."""
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Message:
    """An assistant message; `more` may carry `reasoning_content` or `tool_calls`."""
    return {"role": "assistant", "content": text, **more}


def _call(name: str, arguments: dict[str, Any]) -> Message:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool_schema(name: str, description: str, parameters: dict[str, str]) -> Tool:
    """An OpenAI function tool; `parameters` maps argument names to JSON types."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in parameters.items()},
                "required": list(parameters),
            },
        },
    }


def _words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def _invented(rng: random.Random) -> str:
    """A word nobody has seen: copying it takes attention, not memory."""
    return "".join(
        rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") + rng.choice(("", "", "n", "r", "l"))
        for _ in range(rng.randint(2, 4))
    )


def _any_words(rng: random.Random, low: int, high: int) -> str:
    """Known, invented and proper words and numbers, mixed."""
    draw: tuple[Callable[[], str], ...] = (
        lambda: rng.choice(WORDS), lambda: rng.choice(WORDS), lambda: _invented(rng),
        lambda: rng.choice(NAMES + CITIES), lambda: str(rng.randint(0, 999)),
        lambda: _invented(rng).capitalize(),
    )  # fmt: skip
    return " ".join(rng.choice(draw)() for _ in range(rng.randint(low, high)))


def _lookup(rng: random.Random, table: dict[str, str]) -> tuple[str, str]:
    prompts, answer = rng.choice(list(table.items()))
    return rng.choice(prompts.split("|")), answer


def _greet(rng: random.Random) -> tuple[str, str]:
    return rng.choice(GREETINGS), GREETING


def _count(rng: random.Random) -> tuple[str, str]:
    last = rng.choice((rng.randint(1, 10), rng.randint(2, 20)))
    name = NUMBERS[last - 1] if last <= len(NUMBERS) and rng.random() < 0.25 else str(last)
    prompt = rng.choice(
        ("Count to {}", "Count to {}.", "count to {}", "Please count to {}.", "Count from 1 to {}.",
         "Count up to {}.", "Can you count to {}?", "Zähle bis {}.")
    )  # fmt: skip
    return prompt.format(name), ", ".join(str(i) for i in range(1, last + 1))


def _fact(rng: random.Random) -> tuple[str, str]:
    prompt, answer = _lookup(rng, FACTS)
    end = "?" if " is " in prompt or prompt.split()[0] in {"Who", "How", "At", "Are"} else "."
    return prompt + (end if rng.random() < 0.7 else ""), answer


def _repeat(rng: random.Random) -> tuple[str, str]:
    text = _any_words(rng, 1, 5)
    return rng.choice(REPEAT_PROMPTS).format(text), text


def _value(rng: random.Random) -> Any:
    return rng.choice(
        (
            rng.choice(NAMES),
            rng.choice(CITIES),
            rng.choice(WORDS),
            rng.choice(COLORS),
            True,
            False,
            *(rng.randint(0, 99) for _ in range(4)),
        )
    )


def _json(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.4:
        record: dict[str, Any] = {"name": rng.choice(NAMES), "age": rng.randint(18, 80)}
        if rng.random() < 0.4:
            record["city"] = rng.choice(CITIES)
    else:
        record = {rng.choice(WORDS): _value(rng) for _ in range(rng.randint(1, 3))}
        if rng.random() < 0.3:
            record["tags"] = [rng.choice(COLORS) for _ in range(rng.randint(1, 3))]
    keys = list(record)
    listed = " and ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))
    prompt = rng.choice(
        ("Give me a JSON object with {}.", "Return JSON with {}.", "Reply in JSON with {}.",
         "Write a JSON object with {}.", "JSON with {}", "Describe a person as JSON with {}.")
    )  # fmt: skip
    if rng.random() < 0.3:
        prompt = rng.choice(("Give me a JSON object.", "Reply in JSON.", "Answer as JSON."))
    return prompt.format(listed), json.dumps(record)


def _unknown(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        words = _any_words(rng, 1, 2)
        return rng.choice(UNKNOWN_PROMPTS).replace("{}", words), FALLBACK
    text = _any_words(rng, 3, 25)
    if rng.random() < 0.5:
        text = text.capitalize() + rng.choice(".?!")
    return text, FALLBACK


def _think(rng: random.Random) -> Dialogue:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    prompt = rng.choice(
        ("Think: what is {} + {}?", "Think step by step: what is {} + {}?",
         "Think about it: what is {} plus {}?")
    )  # fmt: skip
    thought = f"The user wants {a} + {b}. That is {a + b}."
    answer = f"The answer is {a + b}."
    return Dialogue([user(prompt.format(a, b)), assistant(answer, reasoning_content=thought)], [])


def _city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.7 else _invented(rng).capitalize()


def _slots(rng: random.Random) -> dict[str, Any]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return {
        "city": _city(rng), "number": rng.randint(10, 39), "hour": rng.randint(10, 23),
        "sky": rng.choice(SKIES), "a": a, "b": b, "total": a + b, "query": _any_words(rng, 1, 3),
        "to": rng.choice(NAMES), "subject": _any_words(rng, 1, 2),
    }  # fmt: skip


def _tools(rng: random.Random) -> Dialogue:
    """A dialogue with one to three tools on offer: called, called and answered, or not needed."""
    use = rng.choices(TOOL_USES, weights=(6, 2, 2, 2, 1))[0]
    name = use.name if rng.random() < 0.6 else rng.choice(ALIASES[use.name])
    city_key = rng.choice(CITY_KEYS)
    parameters = {(city_key if k == "city" else k): kind for k, kind in use.parameters.items()}
    tools = [tool_schema(name, use.description, parameters)]
    others = [other for other in TOOL_USES if other.name != use.name]
    for other in rng.sample(others, rng.choice((0, 0, 0, 1, 1, 2))):
        tools.append(tool_schema(other.name, other.description, other.parameters))
    rng.shuffle(tools)
    if rng.random() < 0.2:
        prompt, answer = rng.choice((_greet, _fact, _count, _unknown))(rng)
        return Dialogue([user(prompt), assistant(answer)], tools)
    slots = [_slots(rng)]
    question = rng.choice(use.questions)
    if use.name == "get_weather" and rng.random() < 0.15:
        slots.append(_slots(rng) | {"city": _city(rng)})
        question = question.replace("{city}", "{city} and {second}")
    calls = [
        _call(name, {(city_key if k == "city" else k): slot[k] for k in use.parameters})
        for slot in slots
    ]
    text = question.format(**slots[0], second=slots[-1]["city"])
    messages = [user(text), assistant("", tool_calls=calls)]
    if rng.random() < 0.5:
        result = rng.choice(use.results)
        messages += [{"role": "tool", "content": result.format(**slot)} for slot in slots]
        messages.append(assistant(" ".join(use.answer.format(**slot) for slot in slots)))
        if rng.random() < 0.15:
            tools = []
    return Dialogue(messages, tools)


Exchange = Callable[[random.Random], tuple[str, str]]
EXCHANGES: tuple[tuple[Exchange, int], ...] = (
    (_greet, 4), (_count, 5), (_fact, 6), (_repeat, 4), (_json, 7), (_unknown, 4),
    (lambda rng: _lookup(rng, GERMAN), 4), (lambda rng: _lookup(rng, UNICODE), 3),
    (lambda rng: (rng.choice(STORY_PROMPTS), STORY), 3),
)  # fmt: skip


def copying(rng: random.Random) -> Dialogue:
    """A dialogue for the first lesson: one to three repetitions of words."""
    messages: list[Message] = []
    for _ in range(rng.randint(1, 3)):
        prompt, answer = _repeat(rng)
        messages += [user(prompt), assistant(answer)]
    return Dialogue(messages, [])


def sample(rng: random.Random) -> Dialogue:
    """One dialogue: tools, thinking, or one to three plain exchanges, at times after a system text.

    The same generator state gives the same dialogue on every platform.
    """
    kind = rng.random()
    if kind < 0.32:
        dialogue = _tools(rng)
    elif kind < 0.36:
        dialogue = _think(rng)
    else:
        messages: list[Message] = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            make = rng.choices([e for e, _ in EXCHANGES], weights=[w for _, w in EXCHANGES])[0]
            prompt, answer = make(rng)
            messages += [user(prompt), assistant(answer)]
            if answer == STORY:
                break
        dialogue = Dialogue(messages, [])
    if rng.random() < 0.3:
        text = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.7 else _words(rng, 3, 20)
        dialogue = Dialogue([{"role": "system", "content": text}, *dialogue.messages],
                            dialogue.tools)  # fmt: skip
    return dialogue
