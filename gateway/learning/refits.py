"""Refits: proposed on collected or uploaded rows, evaluated, left for the operator to activate."""

from __future__ import annotations

import asyncio
import datetime
import io
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from gateway.changes import Change, write_change
from gateway.learning import repository
from gateway.learning.activation import CONFIGURED, require_inactive
from gateway.learning.errors import (
    BadRows,
    RefitBusy,
    RefitNotReady,
    RefitTaken,
    UnknownRefit,
)
from gateway.learning.schema import refits
from gateway.learning.types import Label, encode_line, merge
from gateway.learning.vectors import holders
from gateway.records import Database, RecordsError
from gateway.store import StoreError
from gateway.store.lock import Lock
from routers.cards import Base, CardOrder
from routers.labels import LabelsError, parse_rows
from routers.model_rows import parse_model_rows

log = logging.getLogger("tollhouse.learning")

TIME_LIMIT_S = 900.0
MAX_ROWS = 20_000
# Of the collected conversations together: a worker that serves holds them in memory.
MAX_CHARACTERS = 32 << 20
_BEAT_S = 1.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_TOPIC = "refits"
_LOST = "the worker that ran it ended before it did"
# One thread: a refit must not take the cores that serve.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

State = Literal["running", "done", "failed"]
Origin = Literal["labels", "upload"]


class Refit(msgspec.Struct, frozen=True):
    """`source`: where the rows came from. `base`: the artefact it started from. `report` is what
    the refit measured on rows held out of it, None until it is done; `better` and `verdict` are
    taken from there. `created` in seconds since the epoch."""

    name: str
    state: State
    created: float
    author: str
    source: Origin
    base: str
    rows: int
    error: str
    better: bool | None
    verdict: str | None
    report: dict[str, Any] | None


class Proposal(msgspec.Struct, frozen=True):
    """`upload`: JSON Lines; None for the collected rows, the newest `limit` of them (fewer where
    they are very long, see MAX_CHARACTERS), of `org` alone when it is given. An empty `name` is
    made from the time. With `model` (`backend/model`) the card of that model is fitted, and the
    heads stay as they are; `tier` or `like` (a listed model) say of what kind it is where its name
    tells nothing, and `sole` on which sides it is the only one that answers, as in CardOrder."""

    author: str
    name: str = ""
    seed: int = 0
    org: str | None = None
    limit: int = 5_000
    upload: bytes | None = None
    model: str = ""
    tier: Base | None = None
    like: str = ""
    sole: tuple[Base, ...] = ()


class _Job(msgspec.Struct, frozen=True):
    """What is fitted: the rows to the artefact in `base`. `order`: of a card, None for heads."""

    name: str
    base: Path
    seed: int
    order: CardOrder | None
    lines: bytes


class _Answer(msgspec.Struct):
    report: dict[str, Any] | None = None
    error: str = ""


_answer = msgspec.json.Decoder(_Answer).decode
_report = msgspec.json.Decoder(dict[str, Any]).decode


class Refits:
    """At most one runs at a time, over all workers: `lock` says whose turn it is. `base` gives the
    directory of the active artefact, and raises NoBase when there is none. `program` is what is
    run, for tests."""

    def __init__(
        self,
        database: Database,
        lock: Lock,
        folder: Path,
        base: Callable[[], Path],
        clock: Callable[[], float] = time.time,
        program: Sequence[str] = (sys.executable, "-m", "gateway.learning.refit_process"),
    ) -> None:
        self._database = database
        self._lock = lock
        self._folder = folder
        self._base = base
        self._clock = clock
        self._program = tuple(program)
        self._task: asyncio.Task[None] | None = None
        self._busy = False

    async def propose(self, proposal: Proposal) -> Refit:
        """Start it. Raises BadRows, NoBase, RefitBusy, RefitTaken, RecordsError, StoreError."""
        name = proposal.name or self._fresh_name()
        if _NAME.fullmatch(name) is None or name == CONFIGURED:
            raise BadRows(f"name: 1 to 63 of a-z, 0-9, '_', '-' and '.', not {CONFIGURED!r}")
        order = _order(proposal, name)
        base = self._base()
        if self._busy:
            raise RefitBusy
        self._busy = True
        try:
            refit, lines = await self._begin(proposal, name, base)
        except BaseException:
            # Also when the caller has gone: otherwise no refit could ever start here again.
            self._busy = False
            raise
        job = _Job(name, base, proposal.seed, order, lines)
        self._task = asyncio.create_task(self._run(refit, job))
        return refit

    async def _begin(self, proposal: Proposal, name: str, base: Path) -> tuple[Refit, bytes]:
        if not await self._lock.hold():
            raise RefitBusy
        try:
            lines, count = await self._rows(proposal)
            refit = Refit(
                name=name,
                state="running",
                created=self._clock(),
                author=proposal.author,
                source="labels" if proposal.upload is None else "upload",
                base=base.name,
                rows=count,
                error="",
                better=None,
                verdict=None,
                report=None,
            )
            if await asyncio.to_thread((self._folder / name).exists):
                raise RefitTaken(name)
            await self._database.write(_begin, refit)
        except BaseException:
            # Also when the caller has gone: other workers wait for this lock.
            await self._lock.release()
            raise
        return refit, lines

    async def get(self, name: str) -> Refit:
        """Raises UnknownRefit, RecordsError."""
        found = await self._database.read(_read, name)
        if found is None:
            raise UnknownRefit(name)
        return self._seen(found)

    async def page(self, limit: int, cursor: str | None = None) -> tuple[list[Refit], str | None]:
        """Newest first. Raises ValueError for a cursor that is none, RecordsError."""
        found, following = await self._database.read(_page, limit, cursor)
        return [self._seen(refit) for refit in found], following

    async def delete(self, name: str, actor: str) -> list[str]:
        """Remove a refit that has ended and is not active: its line, then its files. Where the
        files could not be removed, it can be asked for again. Returns the names of those that hold
        a copy of its vectors (see `holders`). Raises UnknownRefit, RefitNotReady, RecordsError."""
        if _NAME.fullmatch(name) is None:
            raise UnknownRefit(name)

        def change(connection: sa.Connection) -> bool:
            found = _read(connection, name, lock=True)
            if found is None:
                return False
            if self._seen(found).state == "running":
                raise RefitNotReady(f"refit {name!r} is running")
            require_inactive(connection, name)
            for other in _running_from(connection, name):
                if self._seen(other).state == "running":
                    raise RefitNotReady(f"refit {other.name!r}, which starts from it, is running")
            connection.execute(refits.delete().where(refits.c.name == name))
            gone = Change(self._clock(), actor, "router.delete", name, found.state, "")
            write_change(connection, _TOPIC, gone)
            return True

        known = await self._database.write(change)
        # Nobody can activate it any more, and nobody takes its name while its folder is there.
        also_in = await asyncio.to_thread(holders, self._folder, name)
        try:
            await asyncio.to_thread(shutil.rmtree, self._folder / name)
        except FileNotFoundError as exc:
            if not known:
                raise UnknownRefit(name) from exc
        except OSError as exc:
            raise RefitNotReady(f"the files of {name!r} were not removed: {exc}") from exc
        return also_in

    async def aclose(self) -> None:
        """A refit that is running is given up, and says so."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _seen(self, refit: Refit) -> Refit:
        """A worker that was killed cannot say that its refit is over."""
        if refit.state == "running" and self._clock() - refit.created > TIME_LIMIT_S + 60:
            return msgspec.structs.replace(refit, state="failed", error=_LOST)
        return refit

    def _fresh_name(self) -> str:
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        return f"refit-{now:%Y%m%d-%H%M%S}"

    async def _rows(self, proposal: Proposal) -> tuple[bytes, int]:
        if proposal.upload is not None:
            lines = proposal.upload
        else:
            limit = min(proposal.limit, MAX_ROWS)
            found = await self._database.read(
                repository.newest_labels, proposal.org, limit, MAX_CHARACTERS
            )
            lines = await asyncio.to_thread(_lines, found)
            if not lines:
                raise BadRows("no labels have been collected yet")
        try:
            count = await asyncio.to_thread(_count, lines, bool(proposal.model))
        except LabelsError as exc:
            raise BadRows(str(exc)) from exc
        if count > MAX_ROWS:
            raise BadRows(f"{count} rows, at most {MAX_ROWS} are taken")
        return lines, count

    async def _run(self, refit: Refit, job: _Job) -> None:
        beat = asyncio.create_task(self._beat())
        partial = self._folder / f".{refit.name}.partial"
        answer = _Answer(error=_LOST)
        try:
            answer = await self._attempt(job, partial)
        finally:
            # The turn is given back before the end is told: who hears of it may propose at once.
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            await self._lock.release()
            self._busy = False
            await self._end(refit, answer)

    async def _attempt(self, job: _Job, partial: Path) -> _Answer:
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                answer = await self._fit(job, partial)
            if answer.report is not None:
                await asyncio.to_thread(partial.rename, self._folder / job.name)
            return answer
        except TimeoutError:
            return _Answer(error=f"it took more than {TIME_LIMIT_S:.0f} seconds")
        except Exception as exc:
            # The border of this background task: whatever went wrong ends up in the listing.
            log.exception("refit %s failed", job.name)
            return _Answer(error=f"it failed: {type(exc).__name__}: {exc}")

    async def _fit(self, job: _Job, out: Path) -> _Answer:
        await asyncio.to_thread(_clear, self._folder, out)
        process = await asyncio.create_subprocess_exec(
            *self._program,
            str(job.base),
            str(out),
            job.name,
            str(job.seed),
            *([] if job.order is None else [msgspec.json.encode(job.order).decode()]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        try:
            said, complaint = await process.communicate(job.lines)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            return _answer(said)
        log.error("refit %s: %s", job.name, complaint.decode("utf-8", "replace")[-4000:])
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return _Answer(error=f"its process ended with {process.returncode}: {last[:500]}")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                if not await self._lock.hold():
                    log.warning("another worker took the turn to refit")
            except StoreError as exc:
                log.warning("the turn to refit is not renewed: %s", exc)

    async def _end(self, refit: Refit, answer: _Answer) -> None:
        try:
            await self._database.write(_finish, refit.name, answer)
        except RecordsError as exc:
            log.error("refit %s ended, and that is not recorded: %s", refit.name, exc)


def _lines(found: list[Label]) -> bytes:
    """JSON Lines. Blocking."""
    return b"".join(encode_line(line) + b"\n" for line in merge(found))


def _order(proposal: Proposal, name: str) -> CardOrder | None:
    """Raises BadRows."""
    if not proposal.model:
        if proposal.tier or proposal.like:
            raise BadRows("model: is missing; tier and like say of what kind it is")
        return None
    try:
        return CardOrder(
            target=proposal.model,
            base=proposal.tier,
            like=proposal.like,
            sole=proposal.sole,
            name=name,
            seed=proposal.seed,
        )
    except ValueError as exc:
        raise BadRows(f"model: {exc}") from exc


def _count(lines: bytes, of_a_model: bool) -> int:
    """How many rows there are. Blocking. Raises LabelsError."""
    # Its lines are those that the process which fits them will see.
    each = io.BytesIO(lines)
    if of_a_model:
        return len(parse_model_rows(each, "rows").queries)
    return len(parse_rows(each, "rows"))


def _clear(folder: Path, out: Path) -> None:
    """Make the folder of artefacts, and room in it. Blocking."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)


def _begin(connection: sa.Connection, refit: Refit) -> None:
    # Whoever has the turn knows that no other refit is running any more.
    connection.execute(
        refits.update().where(refits.c.state == "running").values(state="failed", error=_LOST)
    )
    before = _read(connection, refit.name)
    if before is not None and before.state != "failed":
        raise RefitTaken(refit.name)
    # One that failed left nothing but its name, which may be used again.
    connection.execute(refits.delete().where(refits.c.name == refit.name))
    row = {name: getattr(refit, name) for name in _STORED}
    connection.execute(refits.insert().values(row))
    change = Change(refit.created, refit.author, "router.propose", refit.name, "", refit.source)
    write_change(connection, _TOPIC, change)


def _finish(connection: sa.Connection, name: str, answer: _Answer) -> None:
    done = answer.report is not None
    report = msgspec.json.encode(answer.report).decode() if done else None
    connection.execute(
        refits.update()
        .where(refits.c.name == name)
        # PostgreSQL stores no NUL in text; what a process says at its end may hold one.
        .values(
            state="done" if done else "failed",
            report=report,
            error=answer.error.replace("\0", "\ufffd"),
        )
    )


_STORED = ("name", "state", "created", "author", "source", "base", "rows", "error")


def _read(connection: sa.Connection, name: str, lock: bool = False) -> Refit | None:
    """With `lock`, nobody activates it until the transaction ends."""
    query = sa.select(refits).where(refits.c.name == name)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else _refit(row)


def _running_from(connection: sa.Connection, base: str) -> list[Refit]:
    c = refits.c
    query = sa.select(refits).where(c.state == "running", c.base == base)
    return [_refit(row) for row in connection.execute(query)]


def _page(
    connection: sa.Connection, limit: int, cursor: str | None
) -> tuple[list[Refit], str | None]:
    query = sa.select(refits)
    if cursor is not None:
        before, _, last = cursor.partition("~")
        at = float(before)
        c = refits.c
        query = query.where(sa.or_(c.created < at, sa.and_(c.created == at, c.name < last)))
    query = query.order_by(refits.c.created.desc(), refits.c.name.desc()).limit(limit)
    found = [_refit(row) for row in connection.execute(query)]
    more = len(found) == limit and found
    return found, f"{found[-1].created!r}~{found[-1].name}" if more else None


def _refit(row: Any) -> Refit:
    report = None if row.report is None else _report(row.report)
    return Refit(
        **{name: getattr(row, name) for name in _STORED},
        better=None if report is None else bool(report.get("better")),
        verdict=None if report is None else str(report.get("verdict", "")),
        report=report,
    )
