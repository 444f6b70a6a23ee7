"""How many decisions are the same by an artefact's two graphs, for a CPU and for a GPU.

    python -m routers.evals.graphs [--artefact NAME_OR_DIR] [--data DIR] [--each N] [--json]

Both run on the CPU, which a GPU differs from by last bits. The threshold is the median gain by the
CPU's graph, as in `routers.evals.robustness`: the heads were fitted to what that graph says.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
from numpy.typing import NDArray

from routers.artefacts import BEST, existing_artefact
from routers.evals.robustness import no_data, options, shared_prompts, wilson
from routers.onnx.encoder import Encoder
from routers.onnx.heads import HeadModel, load_heads
from routers.onnx.manifest import ArtefactError, load_manifest
from routers.onnx.render import Rendered, render
from routers.onnx.session import GPU_MODEL, MODEL, load_graph
from routers.onnx.spelling import load_known
from routers.onnx.tokenizer import load_tokenizer
from routers.types import Query, Turn


class Agreement(msgspec.Struct, frozen=True):
    """`same`: share of decisions on the same side, with its 95 % Wilson interval. `shift` and
    `apart`: the mean difference of gains and of their amounts; `cosine`: mean, of sentence vectors;
    `domain` and `task`: shares of equal labels."""

    set: str
    prompts: int
    same: float
    low: float
    high: float
    shift: float
    apart: float
    cosine: float
    domain: float
    task: float


class _Said(msgspec.Struct, frozen=True):
    """`gains` [n], `sentences` [n, width], and labels by topic head."""

    gains: NDArray[np.float32]
    sentences: NDArray[np.float32]
    named: dict[str, list[str | None]]


def agreement(directory: Path, name: str, texts: Sequence[str]) -> Agreement:
    """Of texts that are not empty. Raises ArtefactError, also where there is one graph only."""
    manifest, heads = load_manifest(directory), load_heads(directory)
    tokenizer = load_tokenizer(
        directory / "tokenizer.json", manifest.max_tokens, load_known(directory)
    )
    batch = [render(Query((Turn("user", text),))) for text in texts]
    cpu, gpu = (
        _said(Encoder(tokenizer, load_graph(directory / graph)), heads, batch)
        for graph in (MODEL, GPU_MODEL)
    )
    threshold = float(np.median(cpu.gains))
    same = int(((cpu.gains > threshold) == (gpu.gains > threshold)).sum())
    low, high = wilson(same, len(texts))
    return Agreement(
        set=name,
        prompts=len(texts),
        same=same / len(texts),
        low=low,
        high=high,
        shift=float((gpu.gains - cpu.gains).mean()),
        apart=float(np.abs(gpu.gains - cpu.gains).mean()),
        cosine=float((cpu.sentences * gpu.sentences).sum(axis=1).mean()),
        domain=_equal(cpu.named["domain"], gpu.named["domain"]),
        task=_equal(cpu.named["task"], gpu.named["task"]),
    )


def _said(encoder: Encoder, heads: HeadModel, batch: Sequence[Rendered]) -> _Said:
    reading = encoder.read_singly(batch)
    p = heads.predict(reading.sentences, reading.surfaces, reading.demands)
    named = heads.name_topics(reading.sentences, [rendered.text for rendered in batch])
    return _Said(p[:, 1] - p[:, 0], reading.sentences, named)


def _equal(some: Sequence[str | None], others: Sequence[str | None]) -> float:
    return fmean(float(one == other) for one, other in zip(some, others, strict=True))


def main() -> int:
    given = options("graphs", BEST)
    if given.data is None:
        print(no_data())
        return 2
    try:
        directory = existing_artefact(given.artefact)
        prompts = shared_prompts(given.data, given.each)
        found = [agreement(directory, name, texts) for name, texts in prompts.items()]
    except (ArtefactError, OSError) as exc:
        print(exc)
        return 2
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return 0
    print(f"{given.artefact}: the same by both graphs, decisions at 50 % calls\n")
    for row in found:
        print(
            f"{row.set:<16} decisions {row.same:6.1%} [{row.low:.1%}, {row.high:.1%}]  "
            f"domain {row.domain:.1%}  task {row.task:.1%}  gains apart {row.apart:.4f}, "
            f"shift {row.shift:+.4f}  cosine {row.cosine:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
