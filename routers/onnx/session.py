"""The inference session: token ids in, sentence vectors out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.manifest import ArtefactError, RuntimeMissingError, TwoRuntimesError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_distributions(is_installed: Callable[[str], bool] = installed) -> str:
    """The one distribution of ONNX Runtime that is installed.

    Raises TwoRuntimesError when both are: they share one import package, and whichever was
    installed last silently decides whether the GPU is used. Raises RuntimeMissingError when
    neither is.
    """
    found = [name for name in RUNTIMES if is_installed(name)]
    if len(found) > 1:
        raise TwoRuntimesError(
            "runtime",
            "onnxruntime and onnxruntime-gpu are both installed; uninstall both, then install "
            "one of the extras `cpu` and `gpu`",
        )
    if not found:
        raise RuntimeMissingError("runtime", "no onnxruntime: install the extra `cpu` or `gpu`")
    return found[0]


def available() -> tuple[str, ...]:
    """The execution providers of the installed runtime; none without one."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


class Session:
    """A loaded model. `embed` is synchronous and is called from one thread at a time."""

    def __init__(self, inner: Any, numpy: Any) -> None:
        self._inner = inner
        self._np = numpy

    @property
    def provider(self) -> str:
        """The execution provider that really runs, whatever was asked for."""
        return str(self._inner.get_providers()[0])

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Unit vectors, float32 [len(batch), width], of token ids that are not empty."""
        xp = self._np
        if len(batch) == 1:
            ids = xp.array(batch, dtype=xp.int64)
            mask = xp.ones(ids.shape, dtype=xp.int64)
        else:
            longest = max(len(ids) for ids in batch)
            ids = xp.zeros((len(batch), longest), dtype=xp.int64)
            mask = xp.zeros((len(batch), longest), dtype=xp.int64)
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
        feed = {"input_ids": ids, "attention_mask": mask}
        vectors: NDArray[np.float32] = self._inner.run(["sentence"], feed)[0]
        return vectors


def load_session(path: Path) -> Session:
    """Open the model on CUDA where it is available, else on the CPU with one thread.

    Raises ArtefactError when the file is not a model that the runtime can load.
    """
    check_distributions()
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Warnings go to stderr, past the gateway's log: errors are raised anyway.
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    wanted = [name for name in (CUDA, CPU) if name in available]
    try:
        inner = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as exc:  # the runtime's errors share no base class short of Exception
        raise ArtefactError(path.name, f"cannot be loaded: {exc}") from exc
    return Session(inner, numpy)
