"""The policies in force: from the configuration file, or versioned in the database. Never both."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from gateway.changes import Change, Watch, current_version, write_change
from gateway.config import Config, ConfigError
from gateway.config.load import check_policy_names
from gateway.policies import repository
from gateway.policies.document import Checker, PolicyVersion, decode, from_file, numbered
from gateway.policies.errors import (
    NothingToRollBack,
    PoliciesUnavailable,
    PolicyReadOnly,
    PolicyStale,
    PreconditionMissing,
    UnknownPolicy,
)
from gateway.policies.repository import Draft, Revision
from gateway.records import Database, RecordsError, RecordsUnavailable
from gateway.store import Store
from routers.types import Policy

log = logging.getLogger("tollhouse.policies")

TOPIC = "policies"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_AWAY = "The database of policies does not answer."

T = TypeVar("T")
_ETAG = re.compile(r'(W/)?"[^"]*"')


class Write(msgspec.Struct, frozen=True):
    """Who writes, why, and what they believe to be active: `if_match` and `if_none_match` are
    the values of these headers (RFC 9110, 13.1)."""

    actor: str
    comment: str = ""
    if_match: str | None = None
    if_none_match: str | None = None
    activate: bool = True


async def check_names(config: Config, database: Database) -> None:
    """Whether every policy that the configuration names will be there once a worker has started.
    Raises RecordsError, ConfigError."""
    if config.policy.source == "database":
        stored = await database.read(repository.stored_names)
        check_policy_names(config, config.policies if stored is None else stored)


class Policies:
    """`get` is a lookup in memory. A change by any worker is in force in all of them within a
    second; while the database is away the last known policies stay in force. Before `start` the
    configuration's own policies are there, which is what an offline explanation needs.

    Writes raise PolicyReadOnly when the source is the file, and PoliciesUnavailable.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        store: Store,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._checker = Checker(config)
        self._watch = Watch(TOPIC, store, self._read_version, self._changed, (RecordsError,))
        self._active: dict[str, PolicyVersion] = {}
        for name, policy in config.policies.items():
            self._put(from_file(name, policy))

    @property
    def source(self) -> str:
        """`file` or `database`."""
        return self._config.policy.source

    @property
    def default(self) -> str:
        return self._config.policy.default

    async def start(self) -> None:
        """Raises RecordsError, and ConfigError when a policy that the configuration names is not
        there."""
        if self.source == "database":
            await self._seed()
            await self._watch.start()
            self._active = {}
            await self._changed(None)
        check_policy_names(self._config, self._active)

    async def aclose(self) -> None:
        await self._watch.aclose()

    def get(self, name: str = "") -> PolicyVersion:
        """The active version; an empty name means the default policy. Raises UnknownPolicy."""
        found = self._active.get(name)
        if found is None:
            raise UnknownPolicy(name)
        return found

    def active(self) -> list[PolicyVersion]:
        """All, by name."""
        return [self._active[name] for name in sorted(self._active) if name]

    def validate(self, document: Any) -> Policy:
        """Raises ConfigError with the path inside the document."""
        return self._checker.parse(document)

    async def version(self, name: str, version: int) -> PolicyVersion:
        """Raises UnknownPolicy, PoliciesUnavailable."""
        if self.source == "file":
            found = self.get(name)
            if found.version != version:
                raise UnknownPolicy(name, version)
            return found
        return await self._read(lambda c: repository.read_version(c, name, version))

    async def history(self, name: str) -> list[Revision]:
        """Newest first. Raises UnknownPolicy, PoliciesUnavailable."""
        if self.source == "file":
            found = self.get(name)
            return [Revision(found.version, found.etag, True, "config", "", 0.0, None)]
        revisions = await self._read(lambda c: repository.history(c, name))
        if not revisions:
            raise UnknownPolicy(name)
        return revisions

    async def put(self, name: str, document: Any, write: Write) -> PolicyVersion:
        """Store a new version, and make it the active one unless it is to be a draft. Raises
        ConfigError, PreconditionMissing, PolicyStale."""
        self._writable()
        if _NAME.fullmatch(name) is None:
            raise ConfigError("name", "1 to 64 of letters, digits, '_', '-' and '.'")
        if write.if_match is None and write.if_none_match is None:
            raise PreconditionMissing
        policy = self._checker.parse(document)
        now = self._clock()
        draft = Draft(name, policy, write.actor, write.comment, now)

        def change(connection: sa.Connection) -> tuple[PolicyVersion, int]:
            before = self._expect(connection, name, write)
            made = repository.insert(connection, draft)
            if write.activate:
                replaced = before.version if before else None
                repository.set_active(connection, name, made.version, replaced, now)
            action = "policy.put" if write.activate else "policy.draft"
            return made, self._log(connection, action, write, before, made)

        return await self._commit(name, change)

    async def activate(self, name: str, version: int, write: Write) -> PolicyVersion:
        """Make a stored version the active one. Raises UnknownPolicy, PolicyStale, and ConfigError
        when the document does not fit the configuration any more."""
        self._writable()
        return await self._commit(
            name, lambda c: self._switch(c, name, version, write, "policy.activate")
        )

    async def rollback(self, name: str, write: Write) -> PolicyVersion:
        """Make the version before the active one active: the highest below it that ever was.
        Raises as `activate`, and NothingToRollBack."""
        self._writable()

        def change(connection: sa.Connection) -> tuple[PolicyVersion, int]:
            current = repository.active_version(connection, name)
            if current is None:
                raise UnknownPolicy(name)
            target = repository.version_before(connection, name, current.version)
            if target is None:
                raise NothingToRollBack(name)
            return self._switch(connection, name, target, write, "policy.rollback")

        return await self._commit(name, change)

    def _switch(
        self, connection: sa.Connection, name: str, version: int, write: Write, action: str
    ) -> tuple[PolicyVersion, int]:
        target = repository.read_version(connection, name, version)
        self._checker.check(target.policy)
        before = self._expect(connection, name, write)
        replaced = before.version if before else None
        repository.set_active(connection, name, version, replaced, self._clock())
        return target, self._log(connection, action, write, before, target)

    def _expect(self, connection: sa.Connection, name: str, write: Write) -> PolicyVersion | None:
        """The active version, when it is the one that the writer means."""
        found = repository.active_version(connection, name)
        etag = found.etag if found else ""
        if write.if_match is not None and not _matches(write.if_match, etag):
            raise PolicyStale(etag)
        if write.if_none_match is not None and _matches(write.if_none_match, etag):
            raise PolicyStale(etag)
        return found

    def _log(
        self,
        connection: sa.Connection,
        action: str,
        write: Write,
        before: PolicyVersion | None,
        after: PolicyVersion,
    ) -> int:
        old = before.etag if before else ""
        change = Change(self._clock(), write.actor, action, after.name, old, after.etag)
        return write_change(connection, TOPIC, change)

    def _writable(self) -> None:
        if self.source == "file":
            raise PolicyReadOnly

    async def _commit(
        self, name: str, change: Callable[[sa.Connection], tuple[PolicyVersion, int]]
    ) -> PolicyVersion:
        try:
            made, version = await self._database.write(change)
        except RecordsUnavailable as exc:
            raise PoliciesUnavailable(_AWAY) from exc
        await self._watch.announce(version, name)
        return made

    async def _read(self, step: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._database.read(step)
        except RecordsUnavailable as exc:
            raise PoliciesUnavailable(_AWAY) from exc

    async def _seed(self) -> None:
        now = self._clock()

        def seed(connection: sa.Connection) -> None:
            if not repository.is_empty(connection):
                return
            for name, policy in self._config.policies.items():
                draft = Draft(name, policy, "config", "from the configuration file", now)
                made = repository.insert(connection, draft)
                repository.set_active(connection, name, made.version, None, now)

        try:
            await self._database.write(seed)
        except PolicyStale:
            # Another worker seeded the same empty database at the same moment.
            log.info("policies were seeded by another worker")

    async def _read_version(self) -> int:
        return await self._database.read(lambda c: current_version(c, TOPIC))

    async def _changed(self, _: str | None) -> None:
        stored = await self._database.read(repository.read_active)
        for name, (version, document) in stored.items():
            known = self._active.get(name)
            if known is not None and known.version == version:
                continue
            try:
                self._put(numbered(name, version, decode(document)))
            except ConfigError as exc:
                # Written by a newer release: the version known here stays in force.
                log.error("policy %s version %d cannot be used: %s", name, version, exc)

    def _put(self, found: PolicyVersion) -> None:
        self._active[found.name] = found
        if found.name == self.default:
            self._active[""] = found


def _matches(header: str, etag: str) -> bool:
    """Strong comparison; `*` stands for any existing version."""
    if header.strip() == "*":
        return bool(etag)
    return bool(etag) and any(tag.group() == etag for tag in _ETAG.finditer(header))
