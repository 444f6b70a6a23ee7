"""The client of the store: scripts and commands with deadlines, behind a breaker."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from gateway.store.breaker import Breaker
from gateway.store.errors import StoreError, StoreUnavailable
from gateway.store.link import Endpoint, Entry, Link, pack

EVENTS = "th:events"
Word = str | bytes | int | float


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url`: `unix://`, `redis://` or `rediss://`. `deadline_ms`: what connecting may take, and how
    long the server may be silent while a call that was written waits; one behind others that are
    being answered waits at most four times as long. `breaker_failures` in a row
    open the breaker for `breaker_open_s`."""

    url: str
    deadline_ms: float = 250.0
    connections: int = 1
    breaker_failures: int = 3
    breaker_open_s: float = 1.0


class Script:
    """A Lua script, known to the server by the hash of its text."""

    __slots__ = ("load", "name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
        self.load: bytes = pack(("SCRIPT", "LOAD", text))


class Store:
    """Calls made within one turn of the event loop leave in one write, and each is atomic by
    itself: a failing one fails only its caller.

    Every call raises StoreTimeout at its deadline, and StoreUnavailable at once while the breaker
    is open. After a StoreTimeout or a lost connection the command may or may not have run.
    One instance belongs to one event loop.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._deadline_s = settings.deadline_ms / 1000
        self._links: list[Link] = []
        self._turn = 0
        self._breaker: Breaker | None = None
        self._probing: asyncio.TimerHandle | None = None
        self._probe_task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        return self._breaker is None or self._breaker.allows

    @property
    def generation(self) -> int:
        """Changes whenever a new connection was made: the server may have lost its data."""
        return sum(link.connections for link in self._links)

    async def call(
        self, script: Script, keys: Sequence[str | bytes], args: Sequence[Word] = ()
    ) -> Any:
        """Run a script and return its reply (bytes, int, None or a list of these)."""
        packed: bytes = pack((b"EVALSHA", script.sha, len(keys), *keys, *args))
        return await self._submit(packed, (script.load, packed))

    async def command(self, *words: Word) -> Any:
        """Run one command and return its reply."""
        packed: bytes = pack(words)
        return await self._submit(packed, None)

    async def ping(self) -> None:
        """Raise a StoreError unless the server answers."""
        await self.command("PING")

    async def publish(self, payload: str | bytes) -> None:
        """Tell every worker something, see `events`."""
        await self.command("PUBLISH", EVENTS, payload)

    async def events(self) -> AsyncIterator[bytes | None]:
        """What others publish, for ever. Yields None after each (re)connection: anything may
        have been missed before it, so whatever was cached must be read anew."""
        while not self._closed:
            client = redis.asyncio.Redis.from_url(
                self._settings.url, socket_connect_timeout=self._deadline_s, protocol=2
            )
            try:
                async for payload in self._listen(client):
                    yield payload
            except (RedisError, OSError):
                # The loss is told by the None of the next connection; the delay keeps a server
                # that is down from being asked in a tight loop.
                await asyncio.sleep(self._settings.breaker_open_s / 2)
            finally:
                await client.aclose()

    async def aclose(self) -> None:
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        if self._probe_task is not None:
            self._probe_task.cancel()
        for link in self._links:
            link.drop(StoreUnavailable("the store client is closed"))
        # Sockets are closed by the event loop in a later turn.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _submit(self, packed: bytes, again: tuple[bytes, bytes] | None) -> Any:
        breaker = self._breaker
        if breaker is None:
            breaker = self._open()
        if not breaker.allows:
            raise StoreUnavailable("the store does not answer (breaker open)")
        return await self._send(packed, again)

    def _send(self, packed: bytes, again: tuple[bytes, bytes] | None) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable("the store client is closed")
        loop = asyncio.get_running_loop()
        links = self._links
        if len(links) > 1:
            self._turn = (self._turn + 1) % len(links)
        future: asyncio.Future[Any] = loop.create_future()
        links[self._turn].send(packed, Entry(future, again))
        return future

    def _open(self) -> Breaker:
        settings = self._settings
        endpoint = Endpoint.parse(settings.url)
        loop = asyncio.get_running_loop()
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s, loop.time)
        self._links = [
            Link(endpoint, self._deadline_s, self) for _ in range(max(1, settings.connections))
        ]
        return self._breaker

    def success(self) -> None:
        """A reply came (called by the links)."""
        if self._breaker is not None and self._breaker.allows:
            self._breaker.success()

    def failure(self) -> None:
        """A call failed (called by the links)."""
        breaker = self._breaker
        if breaker is None or not breaker.failure():
            return
        for link in self._links:
            link.drop(StoreUnavailable("the store does not answer (breaker opened)"))
        self._probe_later()

    def _probe_later(self) -> None:
        assert self._breaker is not None
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._probing = loop.call_later(self._breaker.wait, self._probe)

    def _probe(self) -> None:
        self._probe_task = asyncio.get_running_loop().create_task(self._probe_once())

    async def _probe_once(self) -> None:
        assert self._breaker is not None
        try:
            await self._send(pack(("PING",)), None)
        except StoreError as exc:
            for link in self._links:
                link.drop(exc)
            self._breaker.failure()
            self._probe_later()
        else:
            self._breaker.success()

    async def _listen(self, client: redis.asyncio.Redis) -> AsyncIterator[bytes | None]:
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(EVENTS)
            silent = 0
            while silent < 3:
                message = await pubsub.get_message(timeout=self._settings.breaker_open_s)
                if message is None:
                    silent += 1
                    await pubsub.ping()
                    continue
                silent = 0
                if message["type"] == "subscribe":
                    yield None
                elif message["type"] == "message":
                    yield message["data"]
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
