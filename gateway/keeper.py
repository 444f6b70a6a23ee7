"""Starts an embedded server again that has ended by itself: killed for its memory, or crashed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Protocol

from backends.local.engine import EngineError
from gateway.store.errors import StoreError

log = logging.getLogger("tollhouse")

PAUSE = 0.5
LONGEST_PAUSE = 30.0
# As long as a server may take to start: `stop` waits for one that is being started.
STARTING = 90.0


class Child(Protocol):
    """A server in a process of its own. `start` does nothing while it is running, and puts it where
    it was before: same socket, same port."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...


class Keeper:
    """A thread that looks every half second whether the children are running. One that does not
    start again is tried less and less often, up to every half minute."""

    def __init__(self, children: Mapping[str, Child], pause: float = PAUSE) -> None:
        self._children = dict(children)
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Before the children are stopped. A start that is under way is waited for."""
        self._stopping.set()
        self._thread.join(STARTING)

    def _keep(self) -> None:
        pause = self._pause
        while not self._stopping.wait(pause):
            ended = [name for name, child in self._children.items() if not child.running]
            started = [self._restart(name) for name in ended]
            pause = self._pause if all(started) else min(2 * pause, LONGEST_PAUSE)

    def _restart(self, name: str) -> bool:
        log.error("%s has ended by itself; it is started again", name)
        try:
            self._children[name].start()
        except (StoreError, EngineError) as exc:
            log.error("%s does not start: %s", name, exc)
            return False
        log.warning("%s runs again", name)
        return True
