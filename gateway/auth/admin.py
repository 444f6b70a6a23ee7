"""Writing keys and the terms of teams and organisations. Not on the path of a request."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from gateway.auth import repository
from gateway.auth.errors import KeyNotFound, KeyReadOnly
from gateway.auth.keyring import TOPIC, Keyring
from gateway.auth.keys import RandomBytes, new_key, parse_key
from gateway.auth.principal import KeyInfo, KeySpec, ScopeInfo
from gateway.auth.repository import Replay
from gateway.auth.rules import Invalid, check_scope, check_spec
from gateway.changes import Change, write_change
from gateway.records import Database
from gateway.records.errors import RecordsRejected

T = TypeVar("T")
_encoder = msgspec.json.Encoder(order="deterministic")


class Created(msgspec.Struct, frozen=True):
    """`key` is the whole key, shown this once; None when an earlier request with the same
    idempotency key made it."""

    info: KeyInfo
    key: str | None


class KeyAdmin:
    """Each write is one transaction with its line in the log, then told to every worker.

    Raises RecordsError besides what the methods name.
    """

    def __init__(
        self,
        keyring: Keyring,
        database: Database,
        random_bytes: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._keyring = keyring
        self._database = database
        self._random_bytes = random_bytes

    async def create(self, spec: KeySpec, actor: str, replay: Replay | None = None) -> Created:
        """With `replay`, see `replay_of`, a repeated request makes no second key. Raises
        rules.Invalid, ReplayConflict."""
        check_spec(spec)
        key = new_key(self._random_bytes)
        parsed = parse_key(key)
        assert parsed is not None
        now = self._keyring.clock()
        info = KeyInfo(parsed[0], spec, "database", created=now, created_by=actor)
        hash = self._keyring.hasher.digest(key)

        def write(connection: sa.Connection) -> tuple[KeyInfo, int]:
            if replay is not None:
                earlier = repository.replayed(connection, replay, now)
                if earlier is not None:
                    found = repository.find_key(connection, earlier)
                    if found is None:
                        raise KeyNotFound(earlier)
                    return found.info, 0
                repository.remember(connection, replay, info.id, now)
            repository.insert_key(connection, info, hash)
            change = Change(now, actor, "key.create", info.id, after="active")
            return info, write_change(connection, TOPIC, change)

        made, version = await self._write(write)
        if version == 0:
            return Created(made, None)
        await self._keyring.announce(version, info.id)
        return Created(made, key)

    async def page(self, after: str, limit: int) -> list[KeyInfo]:
        """By public id, those after `after`; the configuration's among them."""
        stored = await self._database.read(lambda c: repository.list_keys(c, after, limit))
        given = [info for _, info in self._keyring.given_keys.values() if info.id > after]
        # The configuration wins where both have a key of the same id, as in authentication.
        merged = {info.id: info for info in (*stored, *given)}
        return [merged[id] for id in sorted(merged)[:limit]]

    async def get(self, key_id: str) -> KeyInfo:
        """Raises KeyNotFound."""
        given = self._keyring.given_keys.get(key_id)
        if given is not None:
            return given[1]
        found = await self._database.read(lambda c: repository.find_key(c, key_id))
        if found is None:
            raise KeyNotFound(key_id)
        return found.info

    async def revoke(self, key_id: str, actor: str) -> KeyInfo:
        """Revoking twice changes nothing. Raises KeyNotFound, KeyReadOnly."""
        if key_id in self._keyring.given_keys:
            raise KeyReadOnly(key_id)
        now = self._keyring.clock()

        def write(connection: sa.Connection) -> tuple[KeyInfo, int]:
            version = 0
            if repository.revoke_key(connection, key_id, now):
                change = Change(now, actor, "key.revoke", key_id, "active", "revoked")
                version = write_change(connection, TOPIC, change)
            found = repository.find_key(connection, key_id)
            if found is None:
                raise KeyNotFound(key_id)
            return found.info, version

        info, version = await self._database.write(write)
        if version:
            await self._keyring.announce(version, key_id)
        return info

    async def put_scope(
        self, info: ScopeInfo, actor: str, *, labels_said: bool = True
    ) -> ScopeInfo:
        """Without `labels_said`, `info` may not replace a scope that has labels. Raises
        rules.Invalid, KeyReadOnly."""
        check_scope(info)
        if info.id in self._keyring.given_scopes:
            raise KeyReadOnly(info.id)
        now = self._keyring.clock()

        def write(connection: sa.Connection) -> int:
            before = repository.put_scope(connection, info)
            if before is not None and before.labels and not labels_said:
                # Raised in the transaction, which is rolled back.
                names = ", ".join(before.labels)
                raise Invalid("labels", f"give them again ({names}), or [] to take them away")
            shown = (_shown(before) if before else "", _shown(info))
            return write_change(connection, TOPIC, Change(now, actor, "scope.put", info.id, *shown))

        await self._keyring.announce(await self._write(write), info.id)
        return info

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._database.write(work)
        except RecordsRejected:
            # Another worker made the same row at the same moment; the second look finds it.
            return await self._database.write(work)


def _shown(info: ScopeInfo) -> str:
    """For the log of changes: what tells states apart, and the labels, as far as there is room."""
    mark = hashlib.sha256(_encoder.encode(info)).hexdigest()[:16]
    return f"{mark} labels={','.join(sorted(info.labels))}"[:128]


def replay_of(idempotency_key: str, request: msgspec.Struct) -> Replay:
    """`request` as it was sent: what is made of it, such as the time of an end that it counts from
    now, differs from one repetition to the next."""
    return Replay(
        hashlib.sha256(b"keys:" + idempotency_key.encode()).digest(),
        hashlib.sha256(_encoder.encode(request)).digest(),
    )
