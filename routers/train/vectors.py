"""Sentence vectors of many texts by the model that will serve, computed once.

Each text is a run of its own, as a CPU serves it: dynamic quantisation makes a text's vector
depend on its batch. With a cache directory, vectors are kept from run to run, by a hash of the
model and of the code that asks it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import routers.onnx.characters
import routers.onnx.encoder
import routers.onnx.session
import routers.onnx.spelling
import routers.onnx.tokenizer
import routers.onnx.wordpiece
from routers.heuristics import surface
from routers.onnx.encoder import Encoder, load_encoder
from routers.onnx.render import Rendered, render
from routers.onnx.session import MODEL, WEIGHTS
from routers.onnx.spelling import FILE as SPELLING
from routers.types import Query, Turn

CHUNK = 64
_CODE = (
    routers.onnx.characters,
    routers.onnx.encoder,
    routers.onnx.session,
    routers.onnx.spelling,
    routers.onnx.tokenizer,
    routers.onnx.wordpiece,
)
_ENCODERS: dict[tuple[str, int], Encoder] = {}


class Vectors:
    """Sentence vectors and surface features by text."""

    def __init__(self, artefact: Path, max_tokens: int, cache: Path | None = None) -> None:
        self._artefact, self._max_tokens = artefact, max_tokens
        self._file = None if cache is None else cache / f"{_reading(artefact)}-{max_tokens}.npz"
        self._known: dict[str, NDArray[np.float32]] = {}
        if self._file is not None and self._file.exists():
            with np.load(self._file, allow_pickle=False) as stored:
                vectors = stored["vectors"]
                keys = stored["keys"].tolist()
            self._known = dict(zip(keys, vectors, strict=True))

    def learn(self, texts: Iterable[str]) -> None:
        """Compute what is not known yet, in as many processes as there are cores."""
        missing: dict[str, str] = {}
        for text in texts:
            rendered = as_rendered(text).text
            key = _key(rendered)
            if key not in self._known:
                missing[key] = rendered
        if not missing:
            return
        keys, rendered_texts = list(missing), list(missing.values())
        chunks = [rendered_texts[i : i + CHUNK] for i in range(0, len(keys), CHUNK)]
        started, done = time.monotonic(), 0
        workers = os.cpu_count() or 1
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            jobs = ((str(self._artefact), self._max_tokens, chunk) for chunk in chunks)
            for vectors in pool.map(_embed, jobs):
                for vector in vectors:
                    self._known[keys[done]] = vector
                    done += 1
                spent = time.monotonic() - started
                sys.stderr.write(f"\rembedded {done} of {len(keys)} texts in {spent:.0f} s")
        sys.stderr.write("\n")
        self._save()

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, width], of texts that were learnt."""
        return np.stack([self._known[_key(as_rendered(text).text)] for text in texts])

    def _save(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part.npz")
            np.savez(
                part, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values()))
            )
            part.replace(self._file)


def as_rendered(text: str) -> Rendered:
    """What the router would read of a request that asks just this."""
    return render(Query((Turn("user", text),)))


def surfaces(texts: Sequence[str]) -> NDArray[np.float32]:
    """[n, features], raw."""
    return np.array([surface(as_rendered(text)) for text in texts], dtype=np.float32)


def _reading(artefact: Path) -> str:
    """A hash of all that makes a vector of a text: the files that are read for it, and the code."""
    made = hashlib.sha256()
    files = [artefact / name for name in (MODEL, WEIGHTS, "tokenizer.json", SPELLING)]
    files += [Path(str(module.__file__)) for module in _CODE]
    for file in files:
        if file.exists():
            made.update(hashlib.sha256(file.read_bytes()).digest())
    return made.hexdigest()[:16]


def _key(rendered: str) -> str:
    return hashlib.blake2b(rendered.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _embed(job: tuple[str, int, list[str]]) -> NDArray[np.float32]:
    directory, max_tokens, texts = job
    where = (directory, max_tokens)
    if where not in _ENCODERS:
        _ENCODERS[where] = load_encoder(Path(directory), max_tokens)
    return _ENCODERS[where].read_singly([Rendered(text, len(text)) for text in texts]).sentences
