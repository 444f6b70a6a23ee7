"""The ledger: one round trip before a call and one after it, over all scopes at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Protocol

import msgspec

from gateway.ledger.errors import AmountTooLarge, CannotProvision, DuplicateRequest, LeaseExpired
from gateway.ledger.types import (
    MAX_NANO,
    Balance,
    Enter,
    Entered,
    Reserve,
    Scope,
    Settled,
    Settlement,
)
from gateway.store import Script, Store

ORGS = "th:orgs"
_ORG = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_REBUILD_TRIES = 20
_PAGE = 1000

_MEET = Script("meet", "#!lua flags=allow-oom\nreturn redis.call('SADD', KEYS[1], ARGV[1])")
_encode = msgspec.msgpack.Encoder().encode


# The scripts' msgpack knows no binary type, so bytes travel as arguments of their own: after the
# message and the time, drafts and audit records, or the cache value and the records.
class _Enter(msgspec.Struct, frozen=True):
    request_id: str
    scopes: tuple[Scope, ...]
    tokens: int
    lease_s: float
    cache_key: str | None
    counted: bool
    costs: tuple[int, ...] | None


class _Reserve(msgspec.Struct, frozen=True):
    request_id: str
    scopes: tuple[Scope, ...]
    costs: tuple[int, ...]
    lease_s: float
    booked: int


class _Settle(msgspec.Struct, frozen=True):
    request_id: str
    scopes: tuple[Scope, ...]
    cost: int
    tokens: int
    cache_key: str | None
    cache_ttl: int
    entered: float


class _Peek(msgspec.Struct, frozen=True):
    scopes: tuple[Scope, ...]


class _Probe(msgspec.Struct, frozen=True):
    exists: bool
    number: int
    dirty: int
    start: int
    stop: int


class _Balance(msgspec.Struct, frozen=True):
    missing: bool
    spent: int = 0
    held: int = 0
    start: int = -1
    stop: int = -1


_entered = msgspec.msgpack.Decoder(Entered).decode
_settled = msgspec.msgpack.Decoder(Settled).decode
_probe = msgspec.msgpack.Decoder(_Probe).decode
_balance = msgspec.msgpack.Decoder(_Balance).decode
_outcome = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Books(Protocol):
    """What the ledger asks of the durable records."""

    async def mark(self, org: str, scope: str) -> bool:
        """Note that the scope has a ledger key. True when this is its first."""
        ...

    async def spent(
        self, org: str, scope: str, window: tuple[float, float] | None, outbox: list[Any]
    ) -> int:
        """Nano-USD in the usage records of a window (None: ever), with those entries of the
        outbox that have not been filed yet. Raises ValueError for a scope it cannot sum."""
        ...


def _script(name: str, flags: str = "") -> Script:
    folder = files("gateway.ledger")
    texts = [(folder / f"{part}.lua").read_text() for part in ("common", name)]
    return Script(name, f"#!lua flags={flags}\n" + "".join(texts))


def outbox_key(org: str) -> str:
    """The stream that holds an org's records until they are filed."""
    return f"th:{{{org}}}:o"


class Ledger:
    """Raises StoreError when the store fails: then nothing is known to be held, and the caller
    refuses or falls back as its policy says. After a StoreError from `enter` or `reserve`, settle
    the request at cost 0: should the script have run, or run late, that undoes it.

    `clock`: seconds since the epoch, for tests; None uses the store's clock, one for all replicas.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float] | None = None, books: Books | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._books = books
        self._known: dict[str, int] = {}
        self._enter = _script("enter")
        self._reserve = _script("reserve")
        # Settling and sweeping give memory back, and renewing takes none, so they run even when the
        # server is full.
        self._settle = _script("settle", "allow-oom")
        self._renew = _script("renew", "allow-oom")
        self._sweep = _script("sweep", "allow-oom")
        self._forget = _script("forget", "allow-oom")
        self._provision = _script("provision")
        self._balance = _script("balance", "no-writes")
        self._peek = _script("peek", "no-writes")

    async def enter(self, request: Enter) -> Entered:
        """Take a request's place in limits and budgets, or find its answer in the cache.

        Raises DuplicateRequest, AmountTooLarge, StoreError."""
        if request.costs is not None:
            _check_costs(request.costs, request.draft)
        if self._known.get(request.org) != self._store.generation:
            await self._meet(request.org)
        message = _Enter(
            request.request_id,
            request.scopes,
            request.tokens,
            request.lease_s,
            request.cache_key,
            request.counted,
            request.costs,
        )
        blobs = (request.draft, request.audit or b"")
        packed, cached = await self._run(self._enter, request.org, message, *blobs)
        entered = self._read(packed)
        return entered if cached is None else msgspec.structs.replace(entered, cached=cached)

    async def peek(self, org: str, scopes: tuple[Scope, ...]) -> Entered:
        """What `enter` would say of the limits to a request of one token: "ok" or "limited". Takes
        nothing. Raises StoreError."""
        return _entered(await self._run(self._peek, org, _Peek(scopes)))

    async def reserve(self, request: Reserve) -> Entered:
        """Hold money for an entered request, before its first or its next attempt.

        Raises LeaseExpired, AmountTooLarge, StoreError."""
        _check_costs((*request.costs, request.booked), request.draft)
        message = _Reserve(
            request.request_id, request.scopes, request.costs, request.lease_s, request.booked
        )
        blobs = (request.draft, request.audit or b"")
        packed, _ = await self._run(self._reserve, request.org, message, *blobs)
        return self._read(packed)

    async def settle(self, settlement: Settlement) -> Settled:
        """Book the true cost in the window of the reservation, and file the records. Once."""
        if not 0 <= settlement.cost <= MAX_NANO:
            raise AmountTooLarge(f"cost of {settlement.request_id}: {settlement.cost}")
        if self._known.get(settlement.org) != self._store.generation:
            await self._meet(settlement.org)
        message = _Settle(
            settlement.request_id,
            settlement.scopes,
            settlement.cost,
            settlement.tokens,
            settlement.cache_key,
            settlement.cache_ttl,
            settlement.entered,
        )
        blobs = (settlement.cache_value or b"", *settlement.records)
        return _settled(await self._run(self._settle, settlement.org, message, *blobs))

    async def renew(self, org: str, request_ids: Sequence[str], lease_s: float) -> list[str]:
        """Prolong leases. Returns the ids that hold none any more."""
        gone = await self._run(self._renew, org, {"ids": list(request_ids), "lease_s": lease_s})
        return [id.decode() for id in gone]

    async def sweep(self, org: str, limit: int = 100) -> list[str]:
        """Book expired leases at their worst case. Returns their request ids."""
        expired = await self._run(self._sweep, org, {"limit": limit})
        return [id.decode() for id in expired]

    async def forget(self, org: str | None) -> int:
        """Delete the cached answers of an org, or of all; how many there were. Those of requests
        that have entered until now are not kept later either, whichever worker serves them. In
        steps of a page: others get in between. Raises StoreError, after which doing it again
        does the rest."""
        for name in [org] if org is not None else await self.orgs():
            await self._run(self._forget, name, {})
        pattern = f"th:{{{'*' if org is None else _checked(org)}}}:x:*"
        gone, cursor = 0, b"0"
        while True:
            step = ("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE)
            cursor, keys = await self._store.command(*step)
            if keys:
                gone += await self._store.command("UNLINK", *keys)
            if cursor == b"0":
                return int(gone)

    async def balance(self, org: str, scope: Scope) -> Balance | None:
        """The current window of a scope; None when its ledger key is missing."""
        if scope.budget is None:
            return None
        what = {"id": scope.id, "kind": scope.budget.window}
        found = _balance(await self._run(self._balance, org, what))
        if found.missing:
            return None
        start, stop = (None, None) if found.stop < 0 else (found.start, found.stop)
        return Balance(found.spent, found.held, scope.budget.limit, start, stop)

    async def provision(self, org: str, scope: Scope) -> bool:
        """Make the ledger key of a scope with a budget, unless it is there. What the records say
        was spent in this window counts, whether the key is new, was lost, or its budget has
        another window than before. True when the scope had never had a key.

        Raises CannotProvision, StoreError."""
        if scope.budget is None:
            return False
        if self._books is None:
            raise CannotProvision("no records to build the ledger from")
        await self._meet(org)
        what = {"id": scope.id, "kind": scope.budget.window}
        first = await self._books.mark(org, scope.id)
        for _ in range(_REBUILD_TRIES):
            probe = _probe(await self._run(self._provision, org, {**what, "op": "probe"}))
            if probe.exists:
                return first
            # The outbox is read first: an entry filed in between is then in both, and its
            # attempt id tells so.
            outbox = await self._outbox(org)
            window = None if probe.stop < 0 else (float(probe.start), float(probe.stop))
            try:
                spent = await self._books.spent(org, scope.id, window, outbox)
            except ValueError as exc:
                raise CannotProvision(f"{scope.id}: {exc}") from exc
            found = {"op": "create", "spent": spent, "number": probe.number, "dirty": probe.dirty}
            if await self._run(self._provision, org, {**what, **found}):
                return first
        raise CannotProvision(f"{scope.id}: bookings kept arriving while it was counted")

    async def orgs(self) -> list[str]:
        """All orgs that have been seen."""
        return sorted(org.decode() for org in await self._store.command("SMEMBERS", ORGS))

    async def _outbox(self, org: str) -> list[Any]:
        entries: list[Any] = []
        start = "-"
        while True:
            page = await self._store.command("XRANGE", outbox_key(org), start, "+", "COUNT", _PAGE)
            entries += page
            if len(page) < _PAGE:
                return entries
            start = "(" + page[-1][0].decode()

    async def _meet(self, org: str) -> None:
        await self._store.call(_MEET, (ORGS,), (_checked(org),))
        # A new connection may lead to a server that has lost its data, so this is said again.
        self._known[org] = self._store.generation

    async def _run(self, script: Script, org: str, message: object, *blobs: bytes) -> Any:
        now = b"" if self._clock is None else b"%d" % int(self._clock() * 1_000_000)
        args = (_encode(message), now, *blobs)
        return await self._store.call(script, (f"th:{{{org}}}",), args)

    def _read(self, packed: bytes) -> Entered:
        try:
            return _entered(packed)
        except msgspec.ValidationError as exc:
            outcome = _outcome(packed)["outcome"]
            if outcome == "expired":
                raise LeaseExpired("the request holds no lease") from exc
            if outcome == "duplicate":
                raise DuplicateRequest("the request id was used before") from exc
            raise


def is_org(name: str) -> bool:
    """Whether the ledger can keep an org of this name."""
    return _ORG.fullmatch(name) is not None


def _checked(org: str) -> str:
    if not is_org(org):
        raise ValueError(f"not a usable org name: {org!r}")
    return org


def _check_costs(costs: tuple[int, ...], draft: bytes) -> None:
    if not draft:
        raise ValueError("a reservation needs the draft of its usage record")
    for cost in costs:
        if not 0 <= cost <= MAX_NANO:
            raise AmountTooLarge(f"cost out of range: {cost}")
