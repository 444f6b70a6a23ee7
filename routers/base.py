"""The waist to routers: `Router.score(query) -> Score`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from routers.types import Query, Score


class Router(Protocol):
    """Says how hard a request is. Never raises for anything in the query: what cannot be scored
    comes back as a Score whose `unclassified` names the reason."""

    @property
    def name(self) -> str: ...

    async def score(self, query: Query, *, deadline: float) -> Score:
        """`deadline` is in seconds from now; past it the score is `unclassified="deadline"`."""
        ...

    def detect(self, text: str) -> frozenset[str]:
        """The data classes (`pii`, `phi`) that a model finds in a text of any length; empty where
        there is no such model. Linear, never raises, may be called from any thread: a failure is
        counted, reported by `describe`, and finds nothing, for the patterns look as well."""
        ...

    def describe(self) -> dict[str, object]:
        """Facts for `/readyz`: model name, provider that really runs, hashes."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Pinned(Protocol):
    """A router of files that are pinned: `identity` tells it from another one of its name, and is
    the same wherever these files are loaded."""

    @property
    def identity(self) -> str: ...


def identity(router: Router) -> str:
    """What tells the model of this router from others; its name where nothing is pinned."""
    return router.identity if isinstance(router, Pinned) else router.name


class FixedRouter:
    """The small shipped fake: always the same score."""

    def __init__(self, score: Score) -> None:
        self._score = score

    @property
    def name(self) -> str:
        return "fixed"

    async def score(self, query: Query, *, deadline: float) -> Score:
        return self._score

    def detect(self, text: str) -> frozenset[str]:
        return frozenset()

    def describe(self) -> dict[str, object]:
        return {"router": "fixed"}

    async def aclose(self) -> None:
        return None
