"""The files of a refitted artefact: copied from the one it starts from, and described anew."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from routers.onnx.manifest import (
    MANIFEST,
    ArtefactError,
    FileEntry,
    Manifest,
    describe_file,
    read_manifest,
)

# In the manifest: rows and figures of the card of a target are under `card/TARGET`.
CARD = "card/"
HALF = ".partial"
# How the manifest's limit begins that says what models the probabilities are of.
MEANING = "p_local_ok "


def require_apart(base: Path, out: Path) -> None:
    """Raises ArtefactError when `out` is the artefact that the refit starts from."""
    if base.resolve() == out.resolve():
        raise ArtefactError(str(out), "is the artefact that the refit starts from")


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A directory to write an artefact into, whose files stand in `out` when all are written, in
    place of those of a former artefact: one that fails before leaves `out` as it was. A reader
    finds the former artefact, none for a moment, or the new one. Raises ArtefactError when `out`
    holds files that are no artefact's, and OSError."""
    former = _former(out)
    fresh = not out.exists()
    half = out / HALF
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        # Without a manifest there is no artefact: none is a mixture of two.
        (out / MANIFEST).unlink(missing_ok=True)
        for name in former:
            (out / name).unlink(missing_ok=True)
        for file in [*_files(half), half / MANIFEST]:
            file.replace(out / file.name)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()  # only succeeds where nothing was written


def _former(out: Path) -> list[str]:
    """The files of the artefact in `out`. Raises ArtefactError when there are others."""
    if not out.is_dir():
        return []
    found = [file.name for file in _files(out)]
    pinned = read_manifest(out).files if (out / MANIFEST).exists() else {}
    if strange := sorted(set(found) - set(pinned)):
        raise ArtefactError(strange[0], f"is in {out} and of no artefact: name another directory")
    return found


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
