"""The files of a refitted artefact: copied from the one it starts from, and described anew."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from routers.onnx.manifest import MANIFEST, ArtefactError, FileEntry, Manifest, describe_file

# In the manifest: rows and figures of the card of a target are under `card/TARGET`.
CARD = "card/"
HALF = ".partial"


def require_apart(base: Path, out: Path) -> None:
    """Raises ArtefactError when `out` is the artefact that the refit starts from."""
    if base.resolve() == out.resolve():
        raise ArtefactError(str(out), "is the artefact that the refit starts from")


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A directory to write an artefact into, whose files stand in `out` when all are written: one
    that fails half-way leaves nothing. Raises OSError."""
    fresh = not out.exists()
    half = out / HALF
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        # The manifest last: until then a reader finds the former one, or none.
        for file in [*_files(half), half / MANIFEST]:
            file.replace(out / file.name)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()  # only succeeds where nothing was written


def copy_files(base: Path, out: Path) -> None:
    """All but the manifest. Raises OSError."""
    for file in _files(base):
        shutil.copyfile(file, out / file.name)


def describe(out: Path) -> dict[str, FileEntry]:
    """What the manifest says of the files in `out`. Raises OSError."""
    return {file.name: describe_file(file) for file in _files(out)}


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def limit_of(target: str) -> str:
    """How the manifest's limit on the card of `target` begins."""
    return f"The card of {target} was fitted "


def without_cards(manifest: Manifest) -> Manifest:
    """The manifest without what it says of fitted cards: heads refitted to other models drop
    them."""
    targets = [name.removeprefix(CARD) for name in manifest.rows if name.startswith(CARD)]
    begins = tuple(limit_of(target) for target in targets)
    return msgspec.structs.replace(
        manifest,
        rows={name: n for name, n in manifest.rows.items() if not name.startswith(CARD)},
        metrics={name: v for name, v in manifest.metrics.items() if not name.startswith(CARD)},
        limits=[limit for limit in manifest.limits if not (begins and limit.startswith(begins))],
    )


def _files(directory: Path) -> list[Path]:
    return sorted(f for f in directory.iterdir() if f.is_file() and f.name != MANIFEST)
