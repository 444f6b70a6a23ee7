"""Who a presented key stands for. The usual case touches neither the database nor the store."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from gateway.auth import repository
from gateway.auth.cache import Entry, KeyCache
from gateway.auth.errors import AuthError, AuthUnavailable, TermsUnreadable
from gateway.auth.from_config import config_keys, config_scopes, hash_key
from gateway.auth.keys import PREFIX, PUBLIC_END, KeyHasher, parse_key
from gateway.auth.principal import KeyInfo, Principal, ScopeInfo
from gateway.auth.repository import StoredKey
from gateway.auth.scopes import ledger_scope, principal_of, scope_ids, unreadable_terms
from gateway.changes import Watch, current_version
from gateway.config import Config
from gateway.ledger import Ledger, LedgerError
from gateway.records import Database, RecordsError
from gateway.store import Store, StoreError

log = logging.getLogger("tollhouse.auth")

TOPIC = "keys"
CACHED_KEYS = 20_000
UNKNOWN_KEYS = 4_096
UNKNOWN_S = 5.0
# At once, and those that wait for their turn: more would be a flood of keys that do not exist.
LOOKUPS = 64
LOOKUPS_WAITING = 4_096
# So long no lookup may end before the database counts as away.
LOOKUP_S = 2.0
AT_ONCE = 500
_PUBLIC_START = len(PREFIX)


class Keyring:
    """Verifies keys from a cache that a change anywhere empties within a second.

    While the database is away, keys that this worker has seen go on working; others give
    AuthUnavailable. `clock`: seconds since the epoch. Keys are written by `KeyAdmin`.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        store: Store,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        # Fits no key; `start` puts the real one in its place.
        self.hasher = KeyHasher(b"")
        self.given_keys: dict[str, tuple[str, KeyInfo]] = {}
        self.given_scopes: dict[str, ScopeInfo] = {}
        # Of teams and organisations, by id: why their terms cannot be read.
        self.unreadable: dict[str, str] = {}
        self._config = config
        self._database = database
        self._ledger = ledger
        self._watch = Watch(TOPIC, store, self._read_version, self._changed, (RecordsError,))
        self._cache = KeyCache(CACHED_KEYS, UNKNOWN_KEYS, UNKNOWN_S, time.monotonic)
        self._scopes: dict[str, ScopeInfo] = {}
        self._loading: dict[str, asyncio.Task[Entry | None]] = {}
        self._turns = asyncio.Semaphore(LOOKUPS)
        self._looked_up = 0
        self._generation = 0

    async def start(self) -> None:
        """Take the configuration's keys and open their books, then watch for changes. Raises
        ConfigError, RecordsError."""
        self.hasher = KeyHasher(hash_key(self._config))
        self.given_keys = config_keys(self._config)
        self.given_scopes = config_scopes(self._config)
        await self._watch.start()
        await self._read_scopes()
        for key_id in self.given_keys:
            await self._load(key_id)

    async def aclose(self) -> None:
        await self._watch.aclose()
        for task in list(self._loading.values()):
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)

    async def authenticate(self, token: str | None) -> Principal:
        """Raises AuthError, TermsUnreadable, or AuthUnavailable when that cannot be told."""
        if not token:
            raise AuthError("missing")
        entry = self._cache.get(token[_PUBLIC_START:PUBLIC_END])
        if entry is None:
            entry = await self._find(token)
        if not hmac.compare_digest(entry.hash, self.hasher.digest(token)):
            raise AuthError("invalid" if parse_key(token) else "malformed")
        if entry.info.revoked is not None:
            raise AuthError("revoked")
        principal = entry.principal
        if principal.expires is not None and principal.expires <= self.clock():
            raise AuthError("expired")
        if principal.fault:
            raise TermsUnreadable(principal.fault)
        return principal

    async def principal(self, key_id: str) -> Principal | None:
        """Of a key that may be used, by its public id alone: for an explanation, never for
        access. Raises AuthUnavailable, TermsUnreadable."""
        entry = self._cache.get(key_id) or await self._load_once(key_id)
        if entry is None or entry.info.state(self.clock()) != "active":
            return None
        if entry.principal.fault:
            raise TermsUnreadable(entry.principal.fault)
        return entry.principal

    async def provision(self, principal: Principal) -> None:
        """Open the books of the principal's budgets, where they are missing. Raises LedgerError,
        StoreError, RecordsError."""
        for scope in principal.scopes:
            if scope.budget is not None:
                await self._ledger.provision(principal.org, scope)

    def scopes(self) -> dict[str, ScopeInfo]:
        """All teams and organisations that have terms, by id, as this worker knows them."""
        return dict(self._scopes)

    async def announce(self, version: int, item: str) -> None:
        """A key, or a scope, was changed and committed as `version`."""
        await self._watch.announce(version, item)

    async def _find(self, token: str) -> Entry:
        parsed = parse_key(token)
        if parsed is None:
            raise AuthError("malformed")
        key_id = parsed[0]
        if self._cache.is_unknown(key_id):
            raise AuthError("invalid")
        entry = await self._load_once(key_id)
        if entry is None:
            raise AuthError("invalid")
        return entry

    async def _load_once(self, key_id: str) -> Entry | None:
        """One lookup for all who ask for the same key at the same time, `LOOKUPS` keys at a time.
        Waits for as long as lookups end."""
        task = self._loading.get(key_id)
        if task is None:
            if len(self._loading) >= LOOKUPS + LOOKUPS_WAITING:
                raise AuthUnavailable("Too many unknown keys are being looked up.")
            task = asyncio.create_task(self._load_in_turn(key_id))
            self._loading[key_id] = task
            task.add_done_callback(lambda done: self._loaded(key_id, done))
        ended = -1
        while ended != self._looked_up:
            ended = self._looked_up
            done, _ = await asyncio.wait({task}, timeout=LOOKUP_S)
            if done:
                return task.result()
            # When only its books take long, the key is known already.
            entry = self._cache.get(key_id)
            if entry is not None:
                return entry
        raise AuthUnavailable

    async def _load_in_turn(self, key_id: str) -> Entry | None:
        async with self._turns:
            return await self._load(key_id)

    def _loaded(self, key_id: str, task: asyncio.Task[Entry | None]) -> None:
        self._loading.pop(key_id, None)
        self._looked_up += 1
        if not task.cancelled():
            # Read, so that a failure nobody waited for any more is not reported as lost.
            task.exception()

    async def _load(self, key_id: str) -> Entry | None:
        entry: Entry | None = None
        for _ in range(3):
            generation = self._generation
            entry = await self._read(key_id)
            if generation != self._generation:
                # Something was changed meanwhile: what was read may be from before.
                continue
            if entry is None:
                self._cache.put_unknown(key_id)
            else:
                self._cache.put(entry)
            break
        if entry is not None:
            if entry.principal.fault:
                log.error("key %s is refused: the terms of %s", key_id, entry.principal.fault)
            await self._open_books(entry.principal)
        return entry

    async def _read(self, key_id: str) -> Entry | None:
        given = self.given_keys.get(key_id)
        if given is not None:
            key, info = given
            return Entry(self.hasher.digest(key), info, principal_of(info, self._scopes))
        try:
            stored = await self._database.read(lambda c: repository.find_key(c, key_id))
        except RecordsError as exc:
            raise AuthUnavailable from exc
        if stored is None:
            return None
        return Entry(stored.hash, stored.info, principal_of(stored.info, self._scopes))

    async def _open_books(self, principal: Principal) -> None:
        try:
            await self.provision(principal)
        except (LedgerError, StoreError, RecordsError) as exc:
            # A budget without books stays closed, so nothing is spent meanwhile.
            log.warning("the books of %s are not open: %s", principal.key_id or principal.org, exc)

    async def _read_version(self) -> int:
        return await self._database.read(lambda c: current_version(c, TOPIC))

    async def _read_scopes(self) -> None:
        stored = await self._database.read(repository.list_scopes)
        # What the configuration says of a scope is not overruled by the database.
        self._scopes = {scope.id: scope for scope in stored} | self.given_scopes
        before, self.unreadable = self.unreadable, unreadable_terms(self._scopes.values())
        for id, fault in self.unreadable.items():
            if before.get(id) != fault:
                log.error("the keys of %s are refused: its %s", id, fault)

    async def _changed(self, item: str | None) -> None:
        """Raises RecordsError when the new state of the scopes cannot be read."""
        self._generation += 1
        if item is not None and ":" not in item:
            self._cache.drop(item)
            return
        await self._read_scopes()
        if item is None:
            await self._read_again()
            return
        # The books first, so that no key is held to a budget before it has any.
        entries = self._cache.entries()
        orgs = {entry.principal.org for entry in entries if item in scope_ids(entry.info)}
        found = self._scopes.get(item)
        readable = found is not None and item not in self.unreadable
        scope = ledger_scope(item, found.terms) if found and readable else None
        if scope is not None:
            for org in orgs:
                await self._open_books(Principal(org=org, scopes=(scope,)))

        def rebuilt(entry: Entry) -> Entry:
            if item not in scope_ids(entry.info):
                return entry
            return msgspec.structs.replace(entry, principal=principal_of(entry.info, self._scopes))

        self._cache.replace(rebuilt)

    async def _read_again(self) -> None:
        """Bring what is cached up to date, many keys at a time: dropping it would send all of them
        to the database at once, each by itself. Raises RecordsError."""
        self._cache.forget_unknown()
        known = list(self._cache.entries())
        for start in range(0, len(known), AT_ONCE):
            part = known[start : start + AT_ONCE]
            ids = [e.info.id for e in part if e.info.id not in self.given_keys]
            stored = await self._database.read(repository.find_keys, ids)
            renewed = {e.info.id: self._renewed(e, stored.get(e.info.id)) for e in part}
            # The books first, as above.
            for around in _added(part, renewed):
                await self._open_books(around)
            self._cache.renew(renewed)

    def _renewed(self, entry: Entry, stored: StoredKey | None) -> Entry | None:
        """None for a key that is in neither the configuration nor the database."""
        if entry.info.id in self.given_keys:
            return msgspec.structs.replace(entry, principal=principal_of(entry.info, self._scopes))
        if stored is None:
            return None
        return Entry(stored.hash, stored.info, principal_of(stored.info, self._scopes))


def _added(before: list[Entry], after: Mapping[str, Entry | None]) -> list[Principal]:
    """The scopes that keys are held to from now on, each once."""
    held = {(entry.principal.org, scope) for entry in before for scope in entry.principal.scopes}
    found = [entry.principal for entry in after.values() if entry is not None]
    now = {(principal.org, scope) for principal in found for scope in principal.scopes}
    return [Principal(org=org, scopes=(scope,)) for org, scope in now - held]
