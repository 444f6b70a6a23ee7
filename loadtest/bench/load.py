"""What the load generator is asked for and what it answers."""

from __future__ import annotations

import json
import random
from typing import Literal

import msgspec

_SYSTEM = (
    "You work at a toll gate on a mountain road. Answer travellers in plain sentences, say what "
    "the fare is, which papers they need and how long the road ahead takes in good weather. "
)
_TOPICS = (
    "the fare for {0} carts of {1}",
    "why the road to {1} closes after {0} days of rain",
    "a poem of {0} lines about {1}",
    "a proof that {0} gates need {0} keepers when {1} is counted twice",
    "a Python function that sorts {0} tickets by {1}",
    "the history of {1} in {0} sentences",
    "how to pack {1} for {0} nights in the snow",
    "whether {0} guards may share one lantern near {1}",
)
_THINGS = ("salt", "wool", "copper", "tea", "glass", "the old bridge", "the northern pass", "amber")


class Load(msgspec.Struct, frozen=True):
    """One run of the generator.

    `head` is the request's head with `CONTENT-LENGTH` in place of the number. `text` chooses the
    prompts: `padded` is 1.9 KB and differs in its number only, `same` is one request again and
    again, `varied` is short and different every time. `first` numbers the first request, so that
    no two runs send the same number.
    """

    port: int
    head: str
    model: str
    requests: int
    connections: int
    first: int
    text: Literal["padded", "same", "varied"] = "padded"
    stream: bool = False
    chunks: int = 0
    gap_us: int = 0
    limit: float = 120.0

    def nonce(self, number: int) -> str:
        return f"{self.first + (0 if self.text == 'same' else number):09d}"


class Outcome(msgspec.Struct, frozen=True):
    """`latency_ms` and `delay_ms` are p50 and p99. A delay is from a chunk's writing by the mock
    to its reading here."""

    completed: int
    failed: int
    chunks: int
    seconds: float
    latency_ms: list[float]
    delay_ms: list[float]
    problems: list[str]


def body(load: Load, number: int) -> bytes:
    """The request's JSON. Its size with `padded` text is 1.9 KB."""
    nonce = load.nonce(number)
    mark = f"n={nonce};"
    if load.stream:
        mark += f" chunks={load.chunks}; gap_us={load.gap_us};"
    if load.text == "varied":
        chance = random.Random(nonce)
        topic = chance.choice(_TOPICS).format(chance.randint(2, 99), chance.choice(_THINGS))
        messages = [{"role": "user", "content": f"Please write about {topic}. {mark}"}]
    else:
        messages = [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": (mark + " What must I pay? " + _SYSTEM * 10)[:1600]},
        ]
    request: dict[str, object] = {"model": load.model, "messages": messages, "max_tokens": 256}
    if load.stream:
        request["stream"] = True
    return json.dumps(request).encode()
