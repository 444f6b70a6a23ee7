"""The learning loop of one worker: what the pipeline, the routes and the admin API reach."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.catalog import Catalog
from gateway.config import Config
from gateway.exchange import Exchange
from gateway.learning import repository
from gateway.learning.activation import Activation, ActiveRouter, Loaders
from gateway.learning.capture import Captures
from gateway.learning.consent import Look
from gateway.learning.errors import NoBase
from gateway.learning.feedback import Feedback
from gateway.learning.lookup import Lookup
from gateway.learning.purse import ORG, Purse
from gateway.learning.refits import Refits
from gateway.learning.repository import Deleted
from gateway.learning.shadow import Shadow
from gateway.learning.sides import sole_sides
from gateway.learning.slot import RouterSlot
from gateway.ledger import Balance, Ledger
from gateway.policies import Policies
from gateway.records import Database, RecordsError
from gateway.store import Store, StoreError
from gateway.store.lock import Lock
from gateway.telemetry import Telemetry, names
from routers.cards import Base
from routers.text import all_text
from routers.types import Candidate

log = logging.getLogger("tollhouse.learning")

DAY_S = 86_400.0
_RETENTION_S = 600.0
_LABELS_S = 30.0


@dataclass(frozen=True)
class Parts:
    """What the loop is built on. `worker` tells this worker from the others; `slot` holds its
    router; `loaders` build others, and `configured` gives the directory of the configured
    artefact, None when that is no directory."""

    config: Config
    worker: str
    database: Database
    store: Store
    ledger: Ledger
    policies: Policies
    catalog: Catalog
    telemetry: Telemetry
    slot: RouterSlot
    loaders: Loaders
    configured: Callable[[], Path | None]


class LearningState(msgspec.Struct, frozen=True):
    """`labels` counts rows as `source.side`; `spent_usd` is what comparisons cost today, None
    while that is not known."""

    capture: bool
    capture_labels: tuple[str, ...]
    retention_days: float
    max_rows: int
    labels: dict[str, int]
    shadow_share: float
    shadow_waiting: int
    shadow_busy: int
    shadow_spent_usd: float | None
    shadow_limit_usd: float
    router: ActiveRouter


class Learning:
    """`start` connects nothing by itself: the database and the policies must have started."""

    def __init__(self, parts: Parts) -> None:
        config, telemetry = parts.config, parts.telemetry
        settings = config.learning
        folder = Path(config.data_dir).absolute() / "artefacts"
        self._parts = parts
        self._settings = settings
        self._retention = Lock(parts.store, "learning-retention", parts.worker, ttl_ms=60_000)
        self._purse = Purse(settings.shadow, parts.ledger, parts.catalog, telemetry)
        self._captures = Captures(
            settings, parts.database, lambda outcome: telemetry.count(names.CAPTURES, outcome)
        )
        self._shadow = Shadow(
            settings,
            config.policy.default,
            parts.policies,
            parts.catalog,
            parts.database,
            self._purse,
            lambda outcome: telemetry.count(names.COMPARISONS, outcome),
        )
        self.feedback = Feedback(
            settings,
            parts.database,
            Lookup(parts.database, parts.store),
            self._captures.flush,
            lambda outcome, usable: telemetry.count(names.FEEDBACK, outcome, usable),
        )
        self.activation = Activation(
            parts.slot,
            parts.database,
            parts.store,
            folder,
            parts.loaders,
        )
        self.refits = Refits(
            parts.database, Lock(parts.store, "refit", parts.worker), folder, self._base
        )
        self._labels: dict[tuple[str, str], int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the active artefact, and run what runs behind the requests. Raises RecordsError."""
        await self.activation.start()
        self._spawn(self._captures.run())
        if self._settings.shadow.share > 0:
            for _ in range(self._settings.shadow.concurrency):
                self._spawn(self._shadow.run())
        self._spawn(self._retain())
        self._spawn(self._count())

    async def aclose(self) -> None:
        """Stop everything; conversations that wait are written, comparisons are given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.refits.aclose()
        await self.activation.aclose()
        if self._tasks:
            await self._captures.flush()

    def samples(self, ex: Exchange) -> bool:
        """Whether the events of this request's answer must be kept for a comparison."""
        return self._shadow.samples(ex)

    def answered(self, ex: Exchange, by: Candidate, events: list[bytes] | None) -> None:
        """A request was answered whole by this one. `events` of a sampled request, None where
        they were too large to be kept. Costs microseconds, waits for nothing, never raises."""
        if not self._settings.capture:
            return
        try:
            wanted = self._captures.wants(ex)
            if not (wanted or ex.sampled):
                return
            look = Look(all_text(ex.inbound.body), self._parts.slot.detect)
            if wanted:
                self._captures.add(ex, by, look)
            if ex.sampled:
                self._shadow.offer(ex, by, events, look)
        except Exception:
            # The border towards a request: what is learnt from it must not harm it.
            log.exception("nothing is learnt from %s", ex.inbound.request_id)

    def label_counts(self) -> dict[tuple[str, str], int]:
        """Rows by source and side, as of a moment ago."""
        return self._labels

    async def state(self) -> LearningState:
        """Raises RecordsError."""
        settings = self._settings
        counts = await self._parts.database.read(repository.counts)
        balance = await self._balance()
        return LearningState(
            capture=settings.capture,
            capture_labels=settings.capture_labels,
            retention_days=settings.retention_days,
            max_rows=settings.max_rows,
            labels={f"{source}.{side}": n for (source, side), n in sorted(counts.items())},
            shadow_share=settings.shadow.share,
            shadow_waiting=self._shadow.waiting,
            shadow_busy=self._shadow.busy,
            shadow_spent_usd=None if balance is None else balance.spent / 1e9,
            shadow_limit_usd=settings.shadow.max_usd_per_day,
            router=self.activation.active,
        )

    def sole(self, target: str) -> tuple[Base, ...]:
        """The sides on which no other model than this one (`backend/model`) answers, by the
        backends and policies as they are now."""
        parts = self._parts
        policies = [each.policy for each in parts.policies.active()]
        return sole_sides(target, parts.catalog.targets, policies, self._settings.shadow)

    async def retain(self, now: float) -> Deleted:
        """Delete what is too old or too much. Raises RecordsError."""
        settings = self._settings
        before = now - settings.retention_days * DAY_S
        return await self._parts.database.write(repository.retain, before, settings.max_rows)

    def _base(self) -> Path:
        """Of the next refit. Raises NoBase."""
        found = self.activation.directory or self._parts.configured()
        if found is None:
            raise NoBase(self._parts.slot.name)
        return found

    async def _balance(self) -> Balance | None:
        try:
            return await self._parts.ledger.balance(ORG, self._purse.scope)
        except StoreError as exc:
            log.info("what comparisons cost is not known: %s", exc)
            return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_report)
        self._tasks.append(task)

    async def _retain(self) -> None:
        """For ever, in one worker at a time."""
        while True:
            try:
                if await self._retention.hold():
                    gone = await self.retain(time.time())
                    if any(msgspec.structs.astuple(gone)):
                        log.info("deleted by retention: %s", gone)
            except (StoreError, RecordsError) as exc:
                log.warning("retention of labels waits: %s", exc)
            await asyncio.sleep(_RETENTION_S)

    async def _count(self) -> None:
        """For ever: what the gauge of labels shows."""
        while True:
            try:
                self._labels = await self._parts.database.read(repository.counts)
            except RecordsError as exc:
                log.info("labels are not counted: %s", exc)
            await asyncio.sleep(_LABELS_S)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a background task of learning ended", exc_info=task.exception())
