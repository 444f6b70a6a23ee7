"""Keys that were at a limit a moment ago.

Limits are taken in the store, once it is known what a request asks for: by then its body has been
received, parsed and read for data classes. A key that goes on sending while it is over its limit
would have all that done for nothing, so those refused lately are asked about first. A key that was
not costs no look at the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.ledger import Entered, Scope

# The shortest and the longest that a refusal is remembered, in seconds. A place for one more
# request at once may be free at any moment, and a limit a minute is full again after one.
_SHORTEST, _LONGEST = 1.0, 60.0
_MOST = 10_000


class OverLimit:
    """In the memory of one worker, the oldest forgotten beyond `_MOST`. `clock`: monotonic, in
    seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def note(self, org: str, entered: Entered) -> None:
        """A limit refused a request. One that asks for more tokens than the limit ever holds says
        nothing of the next one."""
        if entered.limited_scope is None:
            return
        if entered.limited_kind == "tokens" and entered.retry_after is None:
            return
        wait = _LONGEST if entered.retry_after is None else entered.retry_after
        at = org, entered.limited_scope
        self._until[at] = self._clock() + min(max(wait, _SHORTEST), _LONGEST)
        self._until.move_to_end(at)
        if len(self._until) > _MOST:
            self._until.popitem(last=False)

    def has(self, org: str, scopes: tuple[Scope, ...]) -> bool:
        """Whether one of the scopes was at a limit a moment ago."""
        if not self._until:
            return False
        return any([self._still(org, scope.id) for scope in scopes])

    def _still(self, org: str, scope: str) -> bool:
        until = self._until.get((org, scope))
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._until[org, scope]
        return False
