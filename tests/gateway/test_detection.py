"""Texts that are slow to read for data classes take turns, and are not read further once nobody
waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from gateway.config.load import default_policy
from gateway.detection import Detector
from routers.base import FixedRouter
from routers.types import Score
from tests.faults.scene import Raw, chat
from tests.support import Gateway

POLICIES = (default_policy(),)
# Numbers of eleven digits, none of which passes a check: as slow to read as any text.
SLOW = "11111111112x"
CARD = " 4111 1111 1111 1111 "
MODEL_READS = 40_000


class Reading(FixedRouter):
    """Finds `phi` where the text says so, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(Score(p_local_ok=0.5, p_frontier_ok=0.6))
        self.given: list[str] = []

    def detect(self, text: str) -> frozenset[str]:
        self.given.append(text)
        return frozenset(("phi",)) if "patient" in text else frozenset()


@pytest.fixture
async def detector() -> AsyncIterator[Detector]:
    detector = Detector(FixedRouter(Score(p_local_ok=0.5, p_frontier_ok=0.6)))
    yield detector
    await detector.aclose()


async def test_a_short_text_is_read_between_the_turns_of_slow_ones(detector: Detector) -> None:
    slow = [asyncio.create_task(detector.detect(SLOW * 40_000, POLICIES)) for _ in range(12)]
    await asyncio.sleep(0)
    found = await detector.detect("word " * 2_000 + CARD, POLICIES)
    assert found.kinds == ("card",)
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_the_event_loop_runs_on_beside_slow_texts_of_any_length(detector: Detector) -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    ticking = asyncio.create_task(tick())
    for text in (SLOW * 600, SLOW * 20_000):
        before = turns
        await detector.detect(text, POLICIES)
        assert turns > before + 1
    ticking.cancel()


async def test_what_nobody_waits_for_is_read_no_further(detector: Detector) -> None:
    task = asyncio.create_task(detector.detect(SLOW * 4_000_000, POLICIES))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Minutes, if it had to be read to its end.
    async with asyncio.timeout(20):
        found = await detector.detect("word " * 2_000 + CARD, POLICIES)
    assert found.kinds == ("card",)


@pytest.mark.parametrize("where", [0, 16_000, 32_700, 65_500, 99_000])
async def test_the_model_reads_all_of_a_long_text_in_parts(where: int) -> None:
    router = Reading()
    detector = Detector(router)
    text = "word " * 20_000
    text = f"{text[:where]} patient {text[where:]}"
    found = await detector.detect(text, POLICIES)
    await detector.aclose()
    assert found.kinds == ("model:phi",)
    assert max(map(len, router.given)) < MODEL_READS < len(text)


async def test_the_model_is_asked_beside_the_event_loop() -> None:
    threads: list[int] = []

    class Where(Reading):
        def detect(self, text: str) -> frozenset[str]:
            threads.append(threading.get_ident())
            return super().detect(text)

    detector = Detector(Where())
    await detector.detect("word " * 20_000, POLICIES)
    await detector.aclose()
    assert threading.get_ident() not in threads


async def test_clients_that_send_slow_texts_and_leave_do_not_keep_the_next_one_waiting(
    gateway: Gateway,
) -> None:
    text = SLOW * 300_000
    body = b'{"model":"auto","messages":[{"role":"user","content":"%b"}]}' % text.encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {gateway.keys['main']}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    for _ in range(8):
        raw = await Raw.connect(gateway)
        raw.writer.write(head.encode() + body)
        await raw.writer.drain()
        await asyncio.sleep(0.3)
        await raw.close()

    request = chat("word " * 4_000)
    async with asyncio.timeout(20), gateway.async_client() as client:
        answer = await client.post("/v1/chat/completions", json=request)
    assert answer.status_code == 200
