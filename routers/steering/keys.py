"""The cap on the share of one key: a bucket of tokens for each, and few enough buckets."""

from __future__ import annotations

from collections import OrderedDict

# A key's first strong calls are free, so that a small user is not held to a share of nothing.
BURST = 20.0
MAX_KEYS = 10_000


class KeyCaps:
    """Of any run of n scored requests of a key, at most share * n + BURST go strong: every scored
    request puts `share` of a token into the key's bucket, which holds at most BURST, and a strong
    one takes a whole token out. A confounder prefix that makes every request look hard (arXiv
    2501.01818) then costs at most that share of one key's traffic.

    Past `limit` keys the one that was quiet longest is forgotten, and starts anew if it returns.
    """

    __slots__ = ("_buckets", "_limit", "_share", "hits")

    def __init__(self, share: float, limit: int = MAX_KEYS) -> None:
        self._share = share
        self._limit = limit
        self._buckets: OrderedDict[str, float] = OrderedDict()
        self.hits = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def full(self, key: str) -> bool:
        """Whether a strong call of this key would be over its share."""
        return self._buckets.get(key, BURST) + self._share < 1.0

    def count(self, key: str, strong: bool) -> None:
        """One scored request of this key."""
        if self._share >= 1.0:
            return
        left = self._buckets.pop(key, BURST) + self._share - (1.0 if strong else 0.0)
        self._buckets[key] = min(left, BURST)
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
