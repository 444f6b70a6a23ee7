"""The ONNX router: renders, looks in its verdict cache, asks the model through the batcher."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from routers.heuristics import surface
from routers.onnx.batcher import Batcher, BatchLimits, DeadlinePassed, ModelFailed, QueueFull
from routers.onnx.heads import HeadModel, load_heads
from routers.onnx.manifest import ArtefactError, Manifest, load_manifest
from routers.onnx.render import Rendered, render
from routers.onnx.session import CPU, Session, load_session
from routers.onnx.tokenizer import Tokenizer, load_tokenizer
from routers.types import Query, Score

DEFAULT_ARTEFACT = Path(__file__).resolve().parent.parent / "models" / "minilm-l6-int8"
ON_CPU = BatchLimits(max_batch=1, max_wait=0.0, queue=64)
ON_GPU = BatchLimits(max_batch=32, max_wait=0.001, queue=1024)
CACHE_SIZE = 8192
# [CLS] and [SEP]: a text of nothing but characters that the tokenizer drops leaves only these.
SPECIAL_TOKENS = 2


class Verdict(msgspec.Struct, frozen=True):
    """What the model says of one text. `tokens` as the model counts them, cut to its maximum."""

    p_local_ok: float
    p_frontier_ok: float
    tokens: int


class Model(Protocol):
    """Texts to verdicts, in order; None for a text without a token. Called in a worker thread."""

    def __call__(self, batch: Sequence[Rendered], /) -> Sequence[Verdict | None]: ...


class Classifier:
    """The real model: tokenizer, encoder and heads."""

    def __init__(self, tokenizer: Tokenizer, session: Session, heads: HeadModel) -> None:
        self._tokenizer = tokenizer
        self._session = session
        self._heads = heads

    def __call__(self, batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        import numpy as np

        tokens = [self._tokenizer.encode(rendered.text) for rendered in batch]
        sentences = self._session.embed(tokens)
        surfaces = np.array([surface(rendered) for rendered in batch], dtype=np.float32)
        scores = self._heads.predict(sentences, surfaces)
        return [
            Verdict(float(local), float(frontier), len(ids)) if len(ids) > SPECIAL_TOKENS else None
            for ids, (local, frontier) in zip(tokens, scores, strict=True)
        ]


class OnnxRouter:
    """Scores by a model. Build it with `load`, or with any `Model` for a test.

    `facts` are what `describe` reports. Must be closed; belongs to one event loop.
    """

    def __init__(
        self,
        model: Model,
        *,
        facts: dict[str, object],
        limits: BatchLimits = ON_CPU,
        cache_size: int = CACHE_SIZE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._facts = facts
        self._name = str(facts.get("model", "onnx"))
        self._batcher: Batcher[Rendered, Verdict | None] = Batcher(model, limits, clock)
        self._cache: OrderedDict[bytes, Score] = OrderedDict()
        self._cache_size = cache_size
        self._clock = clock
        self._counts = {
            "scored": 0,
            "cached": 0,
            "empty": 0,
            "deadline": 0,
            "too_busy": 0,
            "model_failed": 0,
        }
        self._last_error: str | None = None

    @classmethod
    def load(cls, directory: Path = DEFAULT_ARTEFACT) -> OnnxRouter:
        """Verify the artefact and open it. Blocking, some hundred milliseconds.

        Raises ArtefactError (TwoRuntimesError, RuntimeMissingError) naming the file at fault.
        """
        manifest = load_manifest(directory)
        heads = load_heads(directory / "heads.json")
        tokenizer = load_tokenizer(directory / "tokenizer.json", manifest.max_tokens)
        session = load_session(directory / "model.onnx")
        classifier = Classifier(tokenizer, session, heads)
        try:
            classifier([Rendered("Is everything in place?", 23)])
        except Exception as exc:  # whatever the runtime raises: this artefact cannot serve
            raise ArtefactError("model.onnx", f"does not run: {exc}") from exc
        limits = ON_CPU if session.provider == CPU else ON_GPU
        return cls(classifier, facts=_facts(manifest, session.provider), limits=limits)

    @property
    def name(self) -> str:
        return self._name

    async def score(self, query: Query, *, deadline: float) -> Score:
        started = self._clock()
        rendered = render(query)
        if not rendered.text or rendered.text.isspace():
            return self._unclassified("empty", started)
        key = _key(query.partition, rendered)
        hit = self._cache.get(key)
        if hit is not None:
            self._cache.move_to_end(key)
            self._counts["cached"] += 1
            return msgspec.structs.replace(hit, cached=True, us=self._us(started))
        try:
            verdict = await self._batcher.run(rendered, deadline)
        except DeadlinePassed:
            return self._unclassified("deadline", started)
        except QueueFull:
            return self._unclassified("too_busy", started)
        except ModelFailed as exc:
            self._last_error = str(exc)
            return self._unclassified("model_failed", started)
        if verdict is None:
            return self._unclassified("empty", started)
        if not (math.isfinite(verdict.p_local_ok) and math.isfinite(verdict.p_frontier_ok)):
            self._last_error = "the model gave a score that is no number"
            return self._unclassified("model_failed", started)
        return self._classified(key, rendered, verdict, started)

    def _classified(
        self, key: bytes, rendered: Rendered, verdict: Verdict, started: float
    ) -> Score:
        score = Score(
            p_local_ok=verdict.p_local_ok,
            p_frontier_ok=verdict.p_frontier_ok,
            confidence=confidence(rendered.text, verdict.p_local_ok),
            tokens=verdict.tokens,
            model=self._name,
            us=self._us(started),
        )
        self._counts["scored"] += 1
        self._cache[key] = score
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return score

    def _unclassified(self, reason: str, started: float) -> Score:
        self._counts[reason] += 1
        return Score(unclassified=reason, model=self._name, us=self._us(started))

    def _us(self, started: float) -> int:
        return int((self._clock() - started) * 1e6)

    def stats(self) -> dict[str, object]:
        """Counters since the start; `batch_sizes` counts batches by size."""
        return {
            **self._counts,
            "waiting": self._batcher.waiting,
            "cache_entries": len(self._cache),
            "batch_sizes": dict(sorted(self._batcher.sizes.items())),
        }

    def describe(self) -> dict[str, object]:
        return {**self._facts, "last_error": self._last_error}

    async def aclose(self) -> None:
        await self._batcher.aclose()


class MissingRouter:
    """Stands where a model should be: every score is `unclassified="model_missing"`, at once."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._asked = 0

    @property
    def name(self) -> str:
        return "missing"

    async def score(self, query: Query, *, deadline: float) -> Score:
        self._asked += 1
        return Score(unclassified="model_missing", model=self.name)

    def stats(self) -> dict[str, object]:
        return {"model_missing": self._asked}

    def describe(self) -> dict[str, object]:
        return {"router": "onnx", "model": None, "missing": self._reason}

    async def aclose(self) -> None:
        return None


async def load_router(directory: Path = DEFAULT_ARTEFACT) -> OnnxRouter:
    """`OnnxRouter.load` without blocking the event loop. Raises ArtefactError."""
    return await asyncio.to_thread(OnnxRouter.load, directory)


_ENGLISH = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "is",
        "are",
        "that",
        "for",
        "what",
        "which",
        "how",
        "with",
        "this",
        "it",
        "you",
        "i",
        "my",
        "can",
        "does",
        "write",
        "please",
        "from",
        "be",
        "not",
    ]
)


def looks_english(text: str) -> bool:
    """A cheap guess, right for most texts of a sentence or more; short ASCII texts pass."""
    if not text.isascii():
        foreign = sum(1 for char in text if char > "\x7f" and char.isalpha())
        if foreign * 10 > len(text):
            return False
    words = text.lower().split()
    return len(words) < 8 or sum(word in _ENGLISH for word in words) * 12 >= len(words)


def confidence(text: str, p_local_ok: float) -> float:
    """In [0, 1]: how far the local verdict is from a coin toss; a quarter of that where the text
    is not in the encoder's language."""
    sure = abs(2.0 * p_local_ok - 1.0)
    return round(sure if looks_english(text) else sure / 4, 4)


def _key(partition: str, rendered: Rendered) -> bytes:
    # The count of characters is an input of the heads, and the text may have been cut.
    text = rendered.text.encode("utf-8", "surrogatepass")
    whose = partition.encode("utf-8", "surrogatepass")
    packed = b"%d:%s:%d:%s" % (len(whose), whose, rendered.chars, text)
    return hashlib.blake2b(packed, digest_size=16).digest()


def _facts(manifest: Manifest, provider: str) -> dict[str, object]:
    return {
        "router": "onnx",
        "model": f"{manifest.name}/{manifest.version}",
        "provider": provider,
        "encoder": manifest.encoder,
        "max_tokens": manifest.max_tokens,
        "created": manifest.created,
        "sha256": {name: entry.sha256 for name, entry in sorted(manifest.files.items())},
    }
