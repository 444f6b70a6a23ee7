"""Where artefacts are: the shipped ones by name, others by their directory."""

from __future__ import annotations

import functools
from pathlib import Path

from routers.base import Router
from routers.heuristics import HeuristicRouter

ARTEFACTS = Path(__file__).resolve().parent / "models"
HEURISTIC = "heuristic"
# The better one where there is a GPU to run it, the cheap one elsewhere.
AUTO = "auto"
BEST, FAST = "minilm-l6-int8", "static-192"
# What measuring tools take when nothing is named; a gateway takes what is configured.
DEFAULT = AUTO


def find_artefact(name: str) -> Path:
    """The directory of a shipped artefact, else `name` as a path, whether it exists or not: with a
    separator in it (`./static-192`) it is never a shipped name. `auto` is the shipped one that
    suits this machine."""
    if name == AUTO:
        name = BEST if has_gpu() else FAST
    return ARTEFACTS / name if name in shipped_artefacts() else Path(name)


def existing_artefact(name: str) -> Path:
    """As `find_artefact`, of a directory that is there. Raises `ArtefactError`."""
    from routers.onnx.manifest import ArtefactError

    found = find_artefact(name)
    if not found.is_dir():
        shipped = ", ".join(shipped_artefacts())
        raise ArtefactError(name, f"is no directory, and none of those that are shipped: {shipped}")
    return found


@functools.cache
def has_gpu() -> bool:
    """Whether the installed runtime runs a model on a GPU here; false without a runtime. Some
    seconds where there is one, once."""
    from routers.onnx.session import MODEL, starts_cuda

    return starts_cuda(ARTEFACTS / FAST / MODEL)


def shipped_artefacts() -> list[str]:
    """The names of the artefacts that come with the package, sorted."""
    return sorted(folder.name for folder in ARTEFACTS.iterdir() if folder.is_dir())


def open_router(name: str, *, gpu: bool = True) -> Router:
    """The router of a shipped artefact's name, of a directory, or of `heuristic`. Blocking. `gpu`:
    whether it may run on one.

    Raises `routers.onnx.manifest.ArtefactError`.
    """
    if name == HEURISTIC:
        return HeuristicRouter()
    from routers.onnx.router import OnnxRouter

    return OnnxRouter.load(existing_artefact(name), gpu=gpu)
