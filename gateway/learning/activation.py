"""Which artefact scores: chosen by the operator, kept in the database, loaded by every worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import sqlalchemy as sa

from gateway.changes import Change, Watch, current_version, write_change
from gateway.learning.errors import NothingToRollBack, RefitNotReady, UnknownRefit
from gateway.learning.schema import activations, refits
from gateway.learning.slot import RouterSlot
from gateway.records import Database, RecordsError
from gateway.store import Store
from routers.base import Router
from routers.cards import Card, CardError
from routers.onnx.manifest import ArtefactError

log = logging.getLogger("tollhouse.learning")

TOPIC = "router"
# The configured artefact, in words: no refit may have this name.
CONFIGURED = "configured"
_LOADING = "it is being loaded"


class ActiveRouter(msgspec.Struct, frozen=True):
    """`name`: the refit that was activated, or `configured`. `loaded`: whether this worker runs
    it; else `problem` says why the configured artefact stands in, or what scored before goes on.
    `model`: what scores. `since`: seconds since the epoch, None when nothing was ever activated."""

    name: str
    loaded: bool
    problem: str | None
    model: str
    since: float | None


class _Line(msgspec.Struct, frozen=True):
    id: int
    name: str
    before: int
    at: float | None


_BEGINNING = _Line(0, "", 0, None)

Cards = Mapping[str, Card]


class Loaders(msgspec.Struct, frozen=True):
    """How artefacts become routers and model cards; all of them block. `configured` and
    `configured_cards` are of the configured artefact; `artefact` raises ArtefactError and `cards`
    CardError for a directory that cannot be used. `use_cards` is told which cards hold from now
    on."""

    configured: Callable[[], Router]
    configured_cards: Callable[[], Cards]
    artefact: Callable[[Path], Router]
    cards: Callable[[Path], Cards]
    use_cards: Callable[[Cards], None]


class Activation:
    """`folder` holds the artefacts by name."""

    def __init__(
        self,
        slot: RouterSlot,
        database: Database,
        store: Store,
        folder: Path,
        loaders: Loaders,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._slot = slot
        self._database = database
        self._folder = folder
        self._loaders = loaders
        self._clock = clock
        # What is wanted, what scores, and why the two differ where they do.
        self._line = _BEGINNING
        self._running = ""
        self._problem = _LOADING
        self._changing = asyncio.Lock()
        self._watch = Watch(TOPIC, store, self._read_version, self._changed, (RecordsError,))

    async def start(self) -> None:
        """Load what is active. Raises RecordsError."""
        await self._watch.start()
        await self._changed(None)

    async def aclose(self) -> None:
        await self._watch.aclose()

    @property
    def active(self) -> ActiveRouter:
        line = self._line
        loaded = line.name == self._running
        return ActiveRouter(
            name=line.name or CONFIGURED,
            loaded=loaded,
            problem=None if loaded else self._problem,
            model=str(self._slot.describe().get("model") or self._slot.name),
            since=line.at,
        )

    @property
    def directory(self) -> Path | None:
        """Of the refit that is running here; None for the configured artefact."""
        return self._folder / self._running if self._running else None

    async def activate(self, name: str, actor: str) -> ActiveRouter:
        """Make a finished refit, or `configured`, the router of every worker. One that is active
        already is tried again where it could not be loaded. Raises UnknownRefit, RefitNotReady,
        RecordsError."""
        wanted = "" if name == CONFIGURED else name
        if wanted:
            await self._check(wanted)

        def change(connection: sa.Connection) -> int:
            if wanted:
                _require_done(connection, wanted, lock=True)
            line = _last(connection)
            if line.name != wanted:
                return self._write(connection, "router.activate", actor, line, (wanted, line.id))
            # Nobody knows here which workers could not load it: all are told.
            again = Change(self._clock(), actor, "router.activate", "router", name, name)
            return write_change(connection, TOPIC, again)

        await self._watch.announce(await self._database.write(change), name)
        return self.active

    async def rollback(self, name: str, actor: str) -> ActiveRouter:
        """Go back from `name`, which must be active, to what was active before it; once more, to
        what was before that. Raises NothingToRollBack, RefitNotReady, RecordsError."""

        def target(connection: sa.Connection) -> tuple[_Line, _Line]:
            line = _last(connection)
            if name != (line.name or CONFIGURED):
                active = line.name or CONFIGURED
                raise RefitNotReady(f"{name!r} is not active, {active!r} is")
            if line.id == 0:
                raise NothingToRollBack
            before = _line(connection, line.before)
            if line.name == before.name:
                raise NothingToRollBack
            return line, before

        _, before = await self._database.read(target)
        if before.name:
            try:
                await self._check(before.name)
            except UnknownRefit as exc:
                raise RefitNotReady(
                    f"{before.name!r}, which was active before, is deleted: activate another one"
                ) from exc

        def change(connection: sa.Connection) -> int:
            line, before = target(connection)
            if before.name:
                _require_done(connection, before.name, lock=True)
            to = (before.name, before.before)
            return self._write(connection, "router.rollback", actor, line, to)

        version = await self._database.write(change)
        await self._watch.announce(version, before.name or CONFIGURED)
        return self.active

    def _write(
        self,
        connection: sa.Connection,
        action: str,
        actor: str,
        line: _Line,
        to: tuple[str, int],
    ) -> int:
        now = self._clock()
        name, before = to
        connection.execute(
            activations.insert().values(id=line.id + 1, name=name, before=before, at=now)
        )
        change = Change(now, actor, action, "router", line.name or CONFIGURED, name or CONFIGURED)
        return write_change(connection, TOPIC, change)

    async def _check(self, name: str) -> None:
        """Open it once before every worker is told to."""
        await self._database.read(_require_done, name)
        try:
            router, _ = await asyncio.to_thread(self._open, name)
        except (ArtefactError, CardError) as exc:
            raise RefitNotReady(f"the artefact of {name!r} cannot be used: {exc}") from exc
        await router.aclose()

    async def _read_version(self) -> int:
        return await self._database.read(lambda c: current_version(c, TOPIC))

    async def _changed(self, _: str | None) -> None:
        # A change that comes while this worker still starts must not be overtaken by the start.
        async with self._changing:
            await self._follow()

    async def _follow(self) -> None:
        line = await self._database.read(_last)
        self._line, self._problem = line, _LOADING
        if line.name == self._running:
            return
        problem = await self._take(line.name)
        if problem is None:
            return
        if line.name and self._running:
            # What was active before is not wanted any more.
            worse = await self._take("")
            problem = problem if worse is None else f"{problem}; {CONFIGURED}: {worse}"
        self._problem = problem
        scores = f"{self._running} goes on" if self._running else "the configured one stands in"
        log.error("router artefact %s: %s; %s", line.name or CONFIGURED, problem, scores)

    async def _take(self, name: str) -> str | None:
        """Let this artefact score; or say in words why it cannot, and leave what scores."""
        try:
            router, cards = await asyncio.to_thread(self._open, name)
            # Both before the first request that the new router scores: `swap` puts it in place at
            # once, and then waits for the old one's last call.
            self._loaders.use_cards(cards)
        except (ArtefactError, CardError) as exc:
            return str(exc)
        except Exception as exc:
            # The border of this background task: want of memory, or a defect, must not end it.
            log.exception("router artefact %s was not loaded", name or CONFIGURED)
            return f"{type(exc).__name__}: {exc}"
        self._running = name
        await self._slot.swap(router)
        log.info("router is now %s", self._slot.name)
        return None

    def _open(self, name: str) -> tuple[Router, Cards]:
        """Blocking. Raises ArtefactError, CardError."""
        if not name:
            return self._loaders.configured(), self._loaders.configured_cards()
        cards = self._loaders.cards(self._folder / name)
        return self._loaders.artefact(self._folder / name), cards


def require_inactive(connection: sa.Connection, name: str) -> None:
    """Raises RefitNotReady for the refit that scores, or is to."""
    if _last(connection).name == name:
        raise RefitNotReady(f"refit {name!r} is active: activate another one first")


def _last(connection: sa.Connection) -> _Line:
    query = sa.select(activations).order_by(activations.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return _BEGINNING if row is None else _Line(row.id, row.name, row.before, row.at)


def _line(connection: sa.Connection, id: int) -> _Line:
    query = sa.select(activations).where(activations.c.id == id)
    row = connection.execute(query).one_or_none()
    return _BEGINNING if row is None else _Line(row.id, row.name, row.before, row.at)


def _require_done(connection: sa.Connection, name: str, lock: bool = False) -> None:
    """With `lock`, nobody deletes it until the transaction ends."""
    query = sa.select(refits.c.state, refits.c.error).where(refits.c.name == name)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownRefit(name)
    if row.state != "done":
        why = f": {row.error}" if row.error else ""
        raise RefitNotReady(f"refit {name!r} is {row.state}{why}")
