"""A lock in the store, for work that one worker at a time should do."""

from __future__ import annotations

import logging

from gateway.store.client import Script, Store
from gateway.store.errors import StoreError

_log = logging.getLogger(__name__)

# Who frees a full server may need the lock for it, so both run there as well.
_HOLD = Script(
    "hold",
    """#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1""",
)
_RELEASE = Script(
    "release",
    """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0""",
)


class Lock:
    """Held for `ttl_ms` after each `hold`. It saves double work and is no proof of exclusion: a
    stalled owner may go on past its time, so the work must stay right when done twice."""

    def __init__(self, store: Store, name: str, owner: str, *, ttl_ms: int = 5000) -> None:
        self._store = store
        self._key = f"th:lock:{name}"
        self._owner = owner
        self._ttl_ms = ttl_ms

    async def hold(self) -> bool:
        """Take or keep the lock. False when another owner has it."""
        return bool(await self._store.call(_HOLD, (self._key,), (self._owner, self._ttl_ms)))

    async def release(self) -> None:
        """Let another take over at once; without it the lock runs out by itself."""
        try:
            await self._store.call(_RELEASE, (self._key,), (self._owner,))
        except StoreError as exc:
            _log.info("lock %s not released: %s", self._key, exc)
