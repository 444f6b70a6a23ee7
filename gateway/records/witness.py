"""What the store keeps of the hash chains, out of reach of who can write to the tables only."""

from __future__ import annotations

from gateway.ledger.ledger import ORGS
from gateway.records.chain import Appended, Cut, Head, Witness
from gateway.store import Script, Store

# What the outbox holds may be all that fills the server: it is filed and deleted there as well.
_NOTE = Script(
    "note",
    """#!lua flags=allow-oom
if ARGV[2] ~= '' then redis.call('SADD', KEYS[2], ARGV[2]) end
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'NX') end
return redis.call('SET', KEYS[1], ARGV[1])""",
)
_ALLOW = Script(
    "allow",
    """#!lua flags=allow-oom
local function seq(text) return tonumber(string.match(text, '^%d+')) end
local known = redis.call('GET', KEYS[1])
if known and seq(known) >= seq(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1""",
)


def head_key(org: str) -> str:
    """The store's copy of an org's chain head, as `seq:hash`."""
    return f"th:{{{org}}}:head"


def cuts_key(org: str) -> str:
    """The set of places where an org's chain was cut, as `seq:hash:resumed`. Nothing here removes
    any."""
    return f"th:{{{org}}}:cuts"


def start_key(org: str) -> str:
    """The last row of an org's chain that retention may have deleted, as `seq:hash`."""
    return f"th:{{{org}}}:start"


class Witnesses:
    """Raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def orgs(self) -> list[str]:
        return sorted(org.decode() for org in await self._store.command("SMEMBERS", ORGS))

    async def seen(self) -> dict[str, Witness]:
        """The chains as the store saw them, for `verify_chain`."""
        found = {org: await self.of(org) for org in await self.orgs()}
        return {org: witness for org, witness in found.items() if witness != Witness()}

    async def of(self, org: str) -> Witness:
        """One chain as the store saw it."""
        cuts = await self._store.command("SMEMBERS", cuts_key(org))
        start = await self._store.command("GET", start_key(org))
        return Witness(
            await self.head(org),
            tuple(_read_cut(cut) for cut in cuts),
            _read_head(start) if start else None,
        )

    async def head(self, org: str) -> Head | None:
        value = await self._store.command("GET", head_key(org))
        return _read_head(value) if value else None

    async def note(self, org: str, first: Appended, head: Head) -> None:
        """After rows were filed, those of `first` before the others. All at once: killed before,
        the next append finds the cut again by the old head. A store that has lost what it knew
        believes the tables where their rows begin."""
        cut = "" if first.cut is None else f"{_text(first.cut.head)}:{first.cut.resumed}"
        start = "" if first.start is None else _text(first.start)
        keys = (head_key(org), cuts_key(org), start_key(org))
        await self._store.call(_NOTE, keys, (_text(head), cut, start))

    async def allow(self, org: str, start: Head) -> None:
        """Before the rows up to this one are deleted. Never goes back."""
        await self._store.call(_ALLOW, (start_key(org),), (_text(start),))


def _text(head: Head) -> str:
    return f"{head.seq}:{head.hash}"


def _read_head(value: bytes) -> Head:
    seq, _, digest = value.decode().partition(":")
    return Head(int(seq), digest)


def _read_cut(value: bytes) -> Cut:
    head, _, resumed = value.rpartition(b":")
    return Cut(_read_head(head), int(resumed))
