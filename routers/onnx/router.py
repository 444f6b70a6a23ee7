"""The ONNX router: renders, looks in its verdict cache, asks the model through the batcher."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from routers.drift import FILE as REFERENCE
from routers.drift import DriftError, DriftMonitor, DriftReport, load_reference
from routers.onnx.batcher import Batcher, BatchLimits, DeadlinePassed, ModelFailed, QueueFull
from routers.onnx.encoder import SPECIAL_TOKENS, Encoder, load_encoder
from routers.onnx.heads import ARRAYS, HeadModel, load_heads
from routers.onnx.manifest import ArtefactError, Manifest, load_manifest
from routers.onnx.render import Rendered, render
from routers.onnx.session import CPU, MODEL
from routers.onnx.texts import TextModels, load_texts
from routers.steering.calibration import FILE as CALIBRATION
from routers.steering.calibration import Calibration, CalibrationError, load_calibration
from routers.types import Query, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_ARTEFACT = Path(__file__).resolve().parent.parent / "models" / "static-192"
# A thread and back costs about a tenth of a millisecond, and more while others compute.
ON_CPU = BatchLimits(max_batch=1, max_wait=0.0, queue=64, at_once=0.002)
ON_GPU = BatchLimits(max_batch=32, max_wait=0.001, queue=1024)
CACHE_SIZE = 8192
ENGLISH = "en"
T = TypeVar("T")


# Asked when an artefact is opened: whether it runs, and at its longest.
_QUESTION = Rendered("Is everything in place?", 23)
_LONG = Rendered("word " * 1000, 5000)


class Verdict(msgspec.Struct, frozen=True):
    """What the model says of one text. `tokens` as the model counts them, cut to its maximum.
    `sentence` [width] is its vector, for watching drift."""

    p_local_ok: float
    p_frontier_ok: float
    tokens: int
    domain: str | None = None
    task: str | None = None
    sentence: NDArray[np.float32] | None = None

    @property
    def is_a_number(self) -> bool:
        return math.isfinite(self.p_local_ok) and math.isfinite(self.p_frontier_ok)


class Model(Protocol):
    """Texts to verdicts, in order; None for a text without a token. Called in a worker thread."""

    def __call__(self, batch: Sequence[Rendered], /) -> Sequence[Verdict | None]: ...


class Classifier:
    """The real model: encoder and heads."""

    def __init__(self, encoder: Encoder, heads: HeadModel) -> None:
        self._encoder = encoder
        self._heads = heads

    def __call__(self, batch: Sequence[Rendered], /) -> Sequence[Verdict | None]:
        reading = self._encoder.read(batch)
        scores = self._heads.predict(reading.sentences, reading.surfaces, reading.demands)
        named = self._heads.name_topics(reading.sentences, [one.text for one in batch])
        return [
            None
            if reading.tokens[row] <= SPECIAL_TOKENS
            else Verdict(
                p_local_ok=float(scores[row, 0]),
                p_frontier_ok=float(scores[row, 1]),
                tokens=reading.tokens[row],
                domain=named["domain"][row] if "domain" in named else None,
                task=named["task"][row] if "task" in named else None,
                sentence=reading.sentences[row],
            )
            for row in range(len(batch))
        ]


@dataclass(frozen=True)
class Extras:
    """What an artefact may bring beside its model: the text models, calibration rows, and the
    monitor of drift against its training rows."""

    texts: TextModels = field(default_factory=TextModels)
    calibration: Calibration | None = None
    monitor: DriftMonitor | None = None


class OnnxRouter:
    """Scores by a model. Build it with `load`, or with any `Model` for a test.

    `facts` are what `describe` reports. Must be closed; belongs to one event loop.
    """

    def __init__(
        self,
        model: Model,
        *,
        facts: dict[str, object],
        extras: Extras | None = None,
        limits: BatchLimits = ON_CPU,
        cache_size: int = CACHE_SIZE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._facts = facts
        extras = extras or Extras()
        self._texts = extras.texts
        self._calibration = extras.calibration
        self._monitor = extras.monitor
        self._name = str(facts.get("model", "onnx"))
        self._identity = _identity(self._name, facts.get("sha256"))
        self._batcher: Batcher[Rendered, Verdict | None] = Batcher(model, limits, clock)
        # With the sentence vector, for a request that is answered from here is watched too.
        self._cache: OrderedDict[bytes, tuple[Score, NDArray[np.float32] | None]] = OrderedDict()
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
    def load(cls, directory: Path = DEFAULT_ARTEFACT, *, gpu: bool = True) -> OnnxRouter:
        """Verify the artefact and open it, on a GPU where that is possible unless `gpu` forbids it.
        Blocking: some hundred milliseconds, on a GPU some seconds.

        Raises ArtefactError (TwoRuntimesError, RuntimeMissingError) naming the file at fault.
        """
        manifest = load_manifest(directory)
        heads = load_heads(directory)
        encoder = load_encoder(directory, manifest.max_tokens, gpu=gpu)
        classifier = Classifier(encoder, heads)
        limits = ON_CPU if encoder.provider == CPU else ON_GPU
        facts, extras = _facts(manifest, encoder), load_extras(directory, heads)
        router = cls(classifier, facts=facts, extras=extras, limits=limits)
        try:
            (verdict,) = classifier([_QUESTION])
            if limits.max_batch > 1:
                # A GPU takes memory and chooses its kernels by size: not in the first burst.
                router._batcher.warm([_LONG] * limits.max_batch)
        except Exception as exc:  # whatever the runtime raises: this artefact cannot serve
            raise ArtefactError(MODEL, f"does not run: {exc}") from exc
        if verdict is None or not verdict.is_a_number:
            raise ArtefactError(ARRAYS, "the heads give a score that is no number")
        return router

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        """The name, and a hash of all files of the artefact."""
        return self._identity

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
            self._watch(*hit)
            return msgspec.structs.replace(hit[0], cached=True, us=self._us(started))
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
        if not verdict.is_a_number:
            self._last_error = "the model gave a score that is no number"
            return self._unclassified("model_failed", started)
        return self._classified(key, rendered, verdict, started)

    def detect(self, text: str) -> frozenset[str]:
        return self._texts.detect(text)

    @property
    def calibration(self) -> Calibration | None:
        """Held-out predictions with their outcomes; None when the artefact brings none."""
        return self._calibration

    def drift(self) -> DriftReport | None:
        """How far the scored requests lie from the training rows; None without a reference."""
        return None if self._monitor is None else self._monitor.report()

    def _classified(
        self, key: bytes, rendered: Rendered, verdict: Verdict, started: float
    ) -> Score:
        language = self._texts.language(rendered.text)
        score = Score(
            p_local_ok=verdict.p_local_ok,
            p_frontier_ok=verdict.p_frontier_ok,
            confidence=confidence(rendered.text, verdict.p_local_ok, language),
            domain=verdict.domain,
            task=verdict.task,
            language=language,
            tokens=verdict.tokens,
            model=self._name,
            us=self._us(started),
        )
        sentence = verdict.sentence if self._monitor is not None else None
        self._watch(score, sentence)
        self._counts["scored"] += 1
        self._cache[key] = score, sentence
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return score

    def _watch(self, score: Score, sentence: NDArray[np.float32] | None) -> None:
        if self._monitor is not None and score.gain is not None:
            self._monitor.observe(score.gain, score.domain, sentence)

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
        return {**self._facts, "last_error": self._last_error, "texts": self._texts.describe()}

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

    def detect(self, text: str) -> frozenset[str]:
        return frozenset()

    def stats(self) -> dict[str, object]:
        return {"model_missing": self._asked}

    def describe(self) -> dict[str, object]:
        return {"router": "onnx", "model": None, "missing": self._reason}

    async def aclose(self) -> None:
        return None


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


def confidence(text: str, p_local_ok: float, language: str | None = None) -> float:
    """In [0, 1]: how far the local verdict is from a coin toss; a quarter of that where the text
    is not in the encoder's language. Without a known `language`, the text itself is asked."""
    sure = abs(2.0 * p_local_ok - 1.0)
    english = language == ENGLISH if language is not None else looks_english(text)
    return round(sure if english else sure / 4, 4)


def load_extras(directory: Path, heads: HeadModel) -> Extras:
    """Raises ArtefactError naming the file that cannot be used."""
    calibration = _optional(directory / CALIBRATION, load_calibration)
    reference = _optional(directory / REFERENCE, load_reference)
    if reference is not None and len(reference.embedding) not in (0, heads.width):
        raise ArtefactError(REFERENCE, "is of an encoder of another width")
    monitor = DriftMonitor(reference) if reference is not None else None
    return Extras(load_texts(directory), calibration, monitor)


def _optional(path: Path, load: Callable[[bytes], T]) -> T | None:
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, CalibrationError, DriftError) as exc:
        raise ArtefactError(path.name, str(exc)) from exc


def _key(partition: str, rendered: Rendered) -> bytes:
    # Characters and demand are inputs of the heads, and the text may have been cut.
    text = rendered.text.encode("utf-8", "surrogatepass")
    whose = partition.encode("utf-8", "surrogatepass")
    packed = b"%d:%s:%d:%f:%s" % (len(whose), whose, rendered.chars, rendered.demand, text)
    return hashlib.blake2b(packed, digest_size=16).digest()


def _identity(name: str, pinned: object) -> str:
    """Of all files, for heads, cards and calibration rows all have a part in what is decided."""
    if not pinned:
        return name
    return f"{name}@{hashlib.sha256(msgspec.json.encode(pinned)).hexdigest()[:16]}"


def _facts(manifest: Manifest, encoder: Encoder) -> dict[str, object]:
    return {
        "router": "onnx",
        "model": f"{manifest.name}/{manifest.version}",
        "provider": encoder.provider,
        "why_cpu": encoder.why_cpu,
        "encoder": manifest.encoder,
        "max_tokens": manifest.max_tokens,
        "created": manifest.created,
        "sha256": {name: entry.sha256 for name, entry in sorted(manifest.files.items())},
    }
