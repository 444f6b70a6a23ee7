"""Training of the router's artefact. Needs the extras `train` and `cpu`; nothing serves from here.

Torch is imported only while training, so that importing this package stays cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routers.onnx.manifest import Manifest

__all__ = ["run"]


def run(data_dir: Path, out_dir: Path) -> Manifest:
    """Train from the labelled rows in `data_dir` and write the artefact into `out_dir`.

    Raises `routers.train.data.DataError` and `routers.train.export.ExportError`.
    """
    from routers.train.pipeline import train

    return train(data_dir, out_dir)
