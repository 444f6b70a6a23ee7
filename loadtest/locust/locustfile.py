"""Mixed traffic for a running gateway: easy and hard questions, streams, repeats, labels.

    TOLLHOUSE_KEY=th-... locust -f loadtest/locust/locustfile.py --headless -u 20 -r 5

`TOLLHOUSE_URL`, `TOLLHOUSE_KEY`, `TOLLHOUSE_LABEL` and `TOLLHOUSE_SECONDS` (see the README).
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, task

URL = os.environ.get("TOLLHOUSE_URL", "http://127.0.0.1:4100")
KEY = os.environ.get("TOLLHOUSE_KEY", "")
MODEL = os.environ.get("TOLLHOUSE_MODEL", "auto")
LABEL = os.environ.get("TOLLHOUSE_LABEL", "eu")
SECONDS = float(os.environ.get("TOLLHOUSE_SECONDS", "60"))
USERS = int(os.environ.get("TOLLHOUSE_USERS", "20"))

EASY = (
    "Say good morning in {0} words.",
    "Count from one to {0}.",
    "What colour is a ripe lemon? Answer number {0}.",
    "Name {0} things one finds in a kitchen.",
)
HARD = (
    "Prove that among any {0} integers two have a difference divisible by {1}.",
    "Write a Python function that merges {0} sorted iterators in O(n log {0}), with its tests.",
    "Compare ways to keep a ledger consistent over {0} replicas when {1} of them are cut off.",
    "Derive the expected number of draws until each of {0} coupons was seen at least {1} times.",
)
LABELLED = (
    "Fasse in {0} Sätzen zusammen, warum die Lieferung nach Graz zu spät kam.",
    "Schreibe eine höfliche Antwort auf Reklamation Nummer {0}.",
)
REPEATED = "What does a traveller pay at the gate, and what does the fare buy?"


class Bounded(LoadTestShape):
    """All users at once, for `TOLLHOUSE_SECONDS`."""

    def tick(self) -> tuple[int, float] | None:
        return (USERS, USERS) if self.get_run_time() < SECONDS else None


class Traveller(FastHttpUser):
    host = URL
    wait_time = between(0.05, 0.2)

    def ask(self, text: str, name: str, label: str = "", stream: bool = False) -> None:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 64,
        }
        headers = {"authorization": f"Bearer {KEY}"}
        if label:
            headers["x-tollhouse-residency"] = label
        if stream:
            body["stream"] = True
        with self.client.post(
            "/v1/chat/completions", json=body, headers=headers, name=name, catch_response=True
        ) as response:
            problem = check(response.status_code, response.text or "", stream, bool(label))
            if problem:
                response.failure(problem)
            else:
                response.success()

    @task(4)
    def easy(self) -> None:
        self.ask(_filled(EASY), "easy")

    @task(2)
    def hard(self) -> None:
        self.ask(_filled(HARD), "hard")

    @task(3)
    def streamed(self) -> None:
        self.ask(_filled(EASY + HARD), "stream", stream=True)

    @task(2)
    def repeated(self) -> None:
        self.ask(REPEATED, "repeat")

    @task(1)
    def labelled(self) -> None:
        self.ask(_filled(LABELLED), "labelled", label=LABEL)


def _filled(texts: tuple[str, ...]) -> str:
    return random.choice(texts).format(random.randint(3, 9999), random.randint(2, 99))


def check(status: int, text: str, stream: bool, labelled: bool) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if status == 403 and labelled:
        code = json.loads(text)["error"]["code"]
        return "" if code == "residency_not_available" else f"403 {code}"
    if status != 200:
        return f"status {status}"
    if not stream:
        return "" if json.loads(text)["choices"][0]["finish_reason"] else "no finish reason"
    events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    if not events or events[-1].strip() != "[DONE]":
        return "no [DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    if any("error" in chunk for chunk in chunks):
        return "error event"
    finished = any(c.get("finish_reason") for chunk in chunks for c in chunk.get("choices", ()))
    return "" if finished else "no finish reason"
