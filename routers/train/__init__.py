"""Training of the router's artefact. Needs the extras `train` and `cpu`; nothing serves from here.

Torch is imported only while training, so that importing this package stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routers.onnx.manifest import Manifest

__all__ = ["run"]


def run(
    data_dir: Path, out_dir: Path, *, cache: Path | None = None, leave_out: Sequence[str] = ()
) -> dict[str, Manifest]:
    """Train from the labelled rows in `data_dir` and write both artefacts into folders of
    `out_dir`. `cache`: a folder that keeps sentence vectors from run to run; `leave_out`: sources
    none of whose rows are used.

    Raises `routers.train.data.DataError`, `routers.train.export.ExportError` and
    `routers.train.discriminant.TopicError`.
    """
    from routers.train.pipeline import train

    return train(data_dir, out_dir, cache=cache, leave_out=leave_out)
