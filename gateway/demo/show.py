"""Runs the tour over HTTP and prints it."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
import msgspec

from gateway.demo.tour import Seen, Step

_COLUMNS = (
    ("asked", 32),
    ("tier", 9),
    ("backend", 15),
    ("reason", 14),
    ("score", 7),
    ("cost USD", 11),
    ("cache", 7),
    ("overhead", 9),
)


def run(url: str, keys: dict[str, str], steps: Iterable[Step]) -> list[str]:
    """Prints a row for each step as it is done. Returns what went wrong."""
    failures: list[str] = []
    print("".join(f"{title:<{width}}" for title, width in _COLUMNS))
    print("-" * sum(width for _, width in _COLUMNS))
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for step in steps:
            seen = ask(client, step, keys[step.key])
            print(row(step, seen), flush=True)
            wrong = step.expect(seen)
            if wrong:
                failures.append(f"{step.title}: {wrong}")
                print(f"  not as expected: {wrong}")
    return failures


def ask(client: httpx.Client, step: Step, key: str) -> Seen:
    headers = {"authorization": f"Bearer {key}", **step.headers}
    if not step.body.get("stream"):
        response = client.post(step.path, json=step.body, headers=headers)
        body = msgspec.json.decode(response.content)
        return Seen(response.status_code, dict(response.headers), body, response.text)
    with client.stream("POST", step.path, json=step.body, headers=headers) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    return Seen(response.status_code, dict(response.headers), None, "", len(lines) - 1)


def row(step: Step, seen: Seen) -> str:
    reason = seen.header("reason")
    if seen.status != 200:
        reason = f"{seen.status} {(seen.body or {}).get('error', {}).get('code')}"
    overhead = seen.header("overhead-ms")
    values = (
        step.title,
        seen.header("tier") or "-",
        seen.header("backend") or "-",
        reason,
        seen.header("score") or "-",
        seen.header("cost-usd") or "-",
        seen.header("cache") or "-",
        f"{overhead} ms" if overhead else "-",
    )
    return "".join(
        f"{value:<{width}}" if len(value) < width else f"{value} "
        for value, (_, width) in zip(values, _COLUMNS, strict=True)
    )


def pasteable(url: str, key: str) -> str:
    """A curl line and an SDK snippet that work as they are."""
    return f"""
curl {url}/v1/chat/completions \\
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model="auto", messages=[{{"role": "user", "content": "Hello!"}}]
)
print(answer.choices[0].message.content)
"""
