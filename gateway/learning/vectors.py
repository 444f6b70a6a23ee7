"""Where the vectors of fitted texts are."""

from __future__ import annotations

from pathlib import Path

from routers.onnx.manifest import HEADS, OWN_ROWS, ArtefactError, describe_file, read_manifest


def holders(folder: Path, name: str) -> list[str]:
    """The other artefacts in `folder` with a copy of this one's vectors of the texts that it was
    fitted to, as the fit of a model's card makes it. By the files, which tell it also where a refit
    between the two is deleted or its name was used again. None for the shipped vectors, which are
    of nobody's requests. One that cannot be read is not named. Blocking."""
    mine = _heads(folder / name)
    if mine is None or not _of_own_rows(folder / name):
        return []
    others = (other.name for other in folder.iterdir() if not other.name.startswith("."))
    return sorted(each for each in others if each != name and _heads(folder / each) == mine)


def _heads(directory: Path) -> str | None:
    try:
        return describe_file(directory / HEADS).sha256
    except OSError:
        return None


def _of_own_rows(directory: Path) -> bool:
    """Also where nothing says so."""
    try:
        return any(source.startswith(OWN_ROWS) for source in read_manifest(directory).rows)
    except ArtefactError:
        return True
