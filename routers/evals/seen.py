"""Whether an artefact is measured on rows that it was fitted to: figures of those say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from routers.onnx.encoder import load_encoder
from routers.onnx.heads import load_heads
from routers.onnx.manifest import load_manifest
from routers.onnx.render import render
from routers.refit.run import remembered
from routers.types import Query

# Enough to tell a few percent from none; more would cost as much as scoring them all again.
SAMPLE = 200
# Below it are the chance matches of short requests.
WORTH_SAYING = 0.1


def seen_share(queries: Sequence[Query], base: Path) -> float:
    """The share of requests, in a sample spread over them, whose sentence vector is in a memory of
    the artefact in `base`. Of rows that are not kept in a memory nothing can be told. Blocking.
    Raises ArtefactError."""
    step = max(1, len(queries) // SAMPLE)
    model = load_heads(base)
    if not queries or not model.committees:
        return 0.0
    encoder = load_encoder(base, load_manifest(base).max_tokens)
    sentences = encoder.read_singly(render(query) for query in queries[::step]).sentences
    found = [remembered(committee, sentences) for committee in model.committees.values()]
    return float(np.logical_or.reduce(found).mean())
