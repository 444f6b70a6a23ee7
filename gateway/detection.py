"""Step 2 reads each request for data classes, and never at the cost of the others.

A text of numbers may cost a hundred times what prose does, and a body may have 50 MB. So a text is
read a turn at a time: what is not over after the first turn goes on in one thread beside the event
loop, where the texts of all requests take turns. A request that ends, because its client left or
its deadline ran out, ends its reading too: what was not read to its end was never let through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from routers.base import Router
from routers.onnx.classes import OVERLAP, PIECE
from routers.patterns import Detection, detecting
from routers.patterns.windows import Steps
from routers.types import Policy

# The kind of what the model found says so: `model:pii`. The patterns' kinds name a form.
MODEL_KIND = "model:"
# A longer text is not begun on the event loop: the model alone takes milliseconds for it.
_LONG_TEXT = 8 * 1024
# Seconds of one turn: short beside the time that a request takes, long beside a change of threads.
_TURN = 0.005
# Characters that the model reads in a turn: whole pieces of its own, so that they are the same.
_MODEL_TEXT = 2 * PIECE
_NOTHING = Detection(frozenset(), ())


class Detector:
    """`router`: whose model looks beside the patterns, asked from any thread."""

    def __init__(self, router: Router) -> None:
        self._router = router
        # One, for what Python code does in several threads is not done sooner, and each of them
        # keeps the event loop waiting.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="detection")

    async def detect(self, text: str, policies: Collection[Policy]) -> Detection:
        """What the patterns find, and what the model finds of the classes that a policy wants it
        to look for. The model can only add: without one, the patterns are what there is."""
        classes = {name for policy in policies for name in policy.detect}
        if not classes or not text:
            return _NOTHING
        modelled = {name for p in policies if p.detect_by == "both" for name in p.detect}
        steps = self._looking(text, classes, modelled)
        found = _turn(steps) if len(text) <= _LONG_TEXT else None
        loop = asyncio.get_running_loop()
        while found is None:
            found = await loop.run_in_executor(self._thread, _turn, steps)
        return found

    async def aclose(self) -> None:
        """Waits for no more than a turn of what is being read."""
        self._thread.shutdown(cancel_futures=True)

    def _looking(self, text: str, classes: set[str], modelled: set[str]) -> Steps[Detection]:
        found = yield from detecting(text, classes)
        if not modelled:
            return found
        more: set[str] = set()
        for start in range(0, max(1, len(text) - OVERLAP), _MODEL_TEXT):
            more |= self._router.detect(text[start : start + _MODEL_TEXT + OVERLAP]) & modelled
            yield
        if not more:
            return found
        kinds = {*found.kinds, *(f"{MODEL_KIND}{name}" for name in more)}
        return Detection(found.labels | more, tuple(sorted(kinds)))


def _turn(steps: Steps[Detection]) -> Detection | None:
    """What was found, or None when the turn was over before."""
    end = perf_counter() + _TURN
    try:
        while perf_counter() < end:
            next(steps)
    except StopIteration as over:
        found: Detection = over.value
        return found
    return None
