"""Scoring many requests with one router, outside a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from routers.base import Router
from routers.labels import LabelsError, conversation, records, tool_count
from routers.patterns import detect
from routers.text import all_text
from routers.types import Query, Score

# Scoring in bulk waits for every answer: a deadline is for requests that somebody waits for.
DEADLINE = 600.0
# A micro-batch or two under way; on a CPU requests are computed one by one anyway.
TOGETHER = 64
CPU = "CPUExecutionProvider"
_READ = ("prompt", "messages", "system", "tools")
_ENCODER = msgspec.json.Encoder()


async def score_all(
    router: Router, queries: Sequence[Query], progress: Callable[[int], None] = lambda done: None
) -> list[Score]:
    """One score for each query, in order. `progress` hears how many are done.

    Each query is a partition of its own, so that nothing comes from the verdict cache and every
    `us` is the time of a real call.
    """
    found: list[Score] = []
    step = 1 if router.describe().get("provider", CPU) == CPU else TOGETHER
    for start in range(0, len(queries), step):
        part = [
            msgspec.structs.replace(query, partition=f"row-{start + i}")
            for i, query in enumerate(queries[start : start + step])
        ]
        if step == 1:
            found.append(await router.score(part[0], deadline=DEADLINE))
        else:
            found += await asyncio.gather(*(router.score(q, deadline=DEADLINE) for q in part))
        progress(len(found))
    return found


async def score_and_close(
    router: Router, queries: Sequence[Query], progress: Callable[[int], None] = lambda done: None
) -> list[Score]:
    """`score_all` for a router that nobody needs afterwards."""
    try:
        return await score_all(router, queries, progress)
    finally:
        await router.aclose()


class Request(msgspec.Struct, frozen=True):
    """A line to score: its `id` as JSON, and `text`, all of it, for detectors."""

    id: msgspec.Raw
    query: Query
    text: str


def read_requests(lines: Iterable[bytes], where: str) -> list[Request]:
    """Lines of `{"id", "prompt"[, "system"][, "tools"]}`, or with `messages` in the place of
    `prompt`; `id` is any JSON and comes back as it is, without one it is the number of the line. A
    line without text is allowed: its score says why it has none.

    Raises LabelsError naming the line and the field at fault.
    """
    requests = [_request(record, at, number) for number, at, record in records(lines, where)]
    if not requests:
        raise LabelsError(f"{where}: has no lines")
    return requests


def _request(record: dict[str, Any], at: str, number: int) -> Request:
    query = Query(conversation(record, at), tools=tool_count(record, at))
    body: dict[str, Any] = {key: record[key] for key in _READ if key in record}
    return Request(_identity(record.get("id", number), at), query, all_text(body))


def _identity(given: object, at: str) -> msgspec.Raw:
    try:
        text = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as exc:
        raise LabelsError(f"{at}: id must be a finite number") from exc
    except RecursionError as exc:
        raise LabelsError(f"{at}: id is nested too deeply") from exc
    # Lone surrogates have no UTF-8 form and could not be written.
    return msgspec.Raw(text.encode("utf-8", "replace"))


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the output: a score as it is written. `us` in microseconds."""

    id: msgspec.Raw
    p_local_ok: float | None
    p_frontier_ok: float | None
    domain: str | None
    task: str | None
    language: str | None
    data_classes: tuple[str, ...]
    confidence: float | None
    model: str
    us: int
    unclassified: str | None = None


def line_of(request: Request, score: Score, modelled: frozenset[str] = frozenset()) -> Line:
    """`modelled`: the data classes that a model found in the whole text; those that the patterns
    find are added."""
    classes = detect(request.text).labels | modelled
    return Line(
        id=request.id,
        p_local_ok=_round(score.p_local_ok),
        p_frontier_ok=_round(score.p_frontier_ok),
        domain=score.domain,
        task=score.task,
        language=score.language,
        data_classes=tuple(sorted(classes)),
        confidence=score.confidence,
        model=score.model,
        us=score.us,
        unclassified=score.unclassified,
    )


async def score_lines(
    router: Router, requests: Sequence[Request], progress: Callable[[int], None]
) -> list[bytes]:
    """The lines of the output, in order. Closes the router."""
    try:
        queries = [request.query for request in requests]
        scores = await score_all(router, queries, progress)
        return [
            _ENCODER.encode(line_of(request, score, router.detect(request.text))) + b"\n"
            for request, score in zip(requests, scores, strict=True)
        ]
    finally:
        await router.aclose()


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
