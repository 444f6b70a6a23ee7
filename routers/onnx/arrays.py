"""The `.npz` files of an artefact: named arrays, read without pickle, checked by shape."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.manifest import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = {"U": "text", "u": "unsigned integers", "i": "integers", "f": "floats"}


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of the file. Raises ArtefactError naming it."""
    import numpy as np

    try:
        # Opened here, for numpy leaves a file open whose archive is broken.
        with path.open("rb") as raw:
            archive = np.load(raw, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ArtefactError(path.name, "is no archive of arrays")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as exc:
        raise ArtefactError(path.name, "cannot be read: No such file or directory") from exc
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise ArtefactError(path.name, f"is no archive of arrays: {exc}") from exc


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays by name in sorted order; the same arrays give the same bytes under the
    same zlib and zipfile, for numpy dates every member 1980. Raises OSError."""
    import numpy as np

    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{k: arrays[k] for k in sorted(arrays)})


def take(
    arrays: Mapping[str, NDArray[Any]],
    file: str,
    name: str,
    kind: str,
    shape: tuple[int | None, ...],
) -> NDArray[Any]:
    """The array of that name, if it has the dtype kind (`U`, `u`, `i`, `f`) and the shape, where
    None fits any size. Raises ArtefactError."""
    if name not in arrays:
        raise ArtefactError(file, f"has no array {name!r}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        want is None or want == size for want, size in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind != kind or not fits:
        wanted = "x".join("?" if size is None else str(size) for size in shape)
        raise ArtefactError(
            file,
            f"{name!r} must be {_KINDS[kind]} of shape {wanted}, not "
            f"{array.dtype} of shape {'x'.join(map(str, array.shape))}",
        )
    return array


def check_rising(array: NDArray[Any], file: str, name: str, below: int) -> None:
    """There must be values, rising strictly, all below `below`. Raises ArtefactError."""
    rising = len(array) > 0 and bool((array[1:] > array[:-1]).all())
    if not rising or int(array[-1]) >= below:
        raise ArtefactError(file, f"{name!r} must rise strictly and stay below {below}")
