"""The inference session: token ids in, sentence vectors out.

An artefact has a graph for a CPU, `model.onnx`, and may have one for a GPU, `model-gpu.onnx`; their
weights may stand in a file that both read. The latter runs where ONNX Runtime can start CUDA;
everywhere else, and where there is none, the former.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routers.onnx.manifest import ArtefactError, RuntimeMissingError, TwoRuntimesError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL, GPU_MODEL, WEIGHTS = "model.onnx", "model-gpu.onnx", "weights.bin"
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
GPU_RUNTIME = "onnxruntime-gpu"
RUNTIMES = ("onnxruntime", GPU_RUNTIME)
DRIVER = "libcuda.so.1"
# Bytes of a GPU's memory at most, for it may be shared with the server of a local model, and no
# more than is asked for at a time.
CUDA_OPTIONS = {"gpu_mem_limit": 1 << 30, "arena_extend_strategy": "kSameAsRequested"}
# Without it ONNX Runtime keeps int8 weights and dequantises them for every request.
FOLD_WEIGHTS = ("session.disable_quant_qdq", "1")
NOT_ASKED = "the CPU was asked for"
NOT_STARTED = "ONNX Runtime could not start CUDA; what it said is on stderr"


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
    """The execution providers that the installed runtime was built with, whether or not there is
    such a device; none without a runtime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def devices(load: Callable[[str], Any] = ctypes.CDLL) -> int:
    """How many GPUs NVIDIA's driver shows this process; 0 without a driver."""
    try:
        library = load(DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


@functools.cache
def no_cuda() -> str | None:
    """Why CUDA need not be tried in this process; None where it may start."""
    if CUDA not in available():
        return "this ONNX Runtime was built without CUDA: the extra `gpu` has one with it"
    if devices() == 0:
        return "NVIDIA's driver is not there, or shows no device"
    import onnxruntime

    # CUDA's libraries come with the extra `gpu`, where the dynamic linker does not look for them.
    # What it misses it prints, and the system may have it: whether CUDA starts is seen afterwards.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    return None


def starts_cuda(probe: Path) -> bool:
    """Whether a session over the model `probe` runs on a GPU."""
    if no_cuda() is not None:
        return False
    return str(_open(probe, (CUDA, CPU)).get_providers()[0]) == CUDA


class Session:
    """A loaded model. `embed` is synchronous and is called from one thread at a time.

    `why_cpu`: why it does not run on a GPU, where it does not.
    """

    def __init__(self, inner: Any, numpy: Any, why_cpu: str | None = None) -> None:
        self._inner = inner
        self._np = numpy
        self.why_cpu = why_cpu

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


def load_session(directory: Path, *, gpu: bool = False) -> Session:
    """Open the artefact's model on the CPU with one thread or, with `gpu`, on a GPU if possible.

    Raises ArtefactError when a file is not a model that the runtime can load.
    """
    check_distributions()
    import numpy

    why = _why_cpu(directory, gpu)
    if why is None:
        inner = _open(directory / GPU_MODEL, (CUDA, CPU))
        if inner.get_providers()[0] == CUDA:
            return Session(inner, numpy)
        why = NOT_STARTED
    return Session(_open(directory / MODEL, (CPU,)), numpy, why)


def load_graph(path: Path) -> Session:
    """Open one graph on the CPU, also one that is made for a GPU: there it is slower than on a GPU
    and than its sibling, and computes the same. Raises ArtefactError."""
    check_distributions()
    import numpy

    return Session(_open(path, (CPU,)), numpy, NOT_ASKED)


def _why_cpu(directory: Path, gpu: bool) -> str | None:
    if not gpu:
        return NOT_ASKED
    if not (directory / GPU_MODEL).exists():
        return "the artefact has no graph for a GPU"
    return no_cuda()


def _open(path: Path, providers: Sequence[str]) -> Any:
    """An inference session of ONNX Runtime. It takes the CPU where CUDA does not start."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Warnings go to stderr, past the gateway's log: errors are raised anyway.
    options.log_severity_level = 3
    if path.name == GPU_MODEL:
        options.add_session_config_entry(*FOLD_WEIGHTS)
    wanted = [(name, CUDA_OPTIONS) if name == CUDA else name for name in providers]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as exc:  # the runtime's errors share no base class short of Exception
        raise ArtefactError(path.name, f"cannot be loaded: {exc}") from exc
