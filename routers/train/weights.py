"""One file of int8 weights that the graph for a CPU and the graph for a GPU both read.

The int8 graph has the weights as ONNX Runtime quantised them. In the graph for a GPU each large
tensor is made of them when the session opens: dequantised, the three projections of attention side
by side, in half precision. So a second graph costs 0.2 MB, and both compute with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Elements from which a tensor counts as weights, and bytes on which one begins in the file.
LARGE = 100_000
ALIGNED = 64
QUANTISED, SCALE, ZERO = "_quantized", "_scale", "_zero_point"
PROJECTIONS = 3
# Half precision keeps 11 bits: the largest weight is below 2.
ROUNDING = 1e-3


class WeightsError(Exception):
    """A large tensor of the graph for a GPU is none of the quantised ones."""


def share_weights(plain: Path, cpu: Path, gpu: Path, weights: Path) -> None:
    """Rewrite `cpu` and `gpu` so that their large tensors come from `weights`, which is written.

    `plain` is the float graph that both were made of. Raises WeightsError.
    """
    import onnx

    quantised, half = onnx.load(cpu), onnx.load(gpu)
    large = [tensor for tensor in half.graph.initializer if _large(tensor)]
    made = _Made(onnx.load(plain), quantised)
    nodes = [node for tensor in large for node in made.nodes(tensor)]
    gone = {tensor.name for tensor in large}
    kept = [tensor for tensor in half.graph.initializer if tensor.name not in gone]
    used = [tensor for tensor in quantised.graph.initializer if tensor.name in made.used]
    _replace(half.graph.initializer, [*kept, *used])
    _replace(half.graph.node, [*nodes, *half.graph.node])
    places = _write(weights, [tensor for tensor in used if tensor.name.endswith(QUANTISED)])
    for model, path in ((quantised, cpu), (half, gpu)):
        _refer(model, weights.name, places)
        path.write_bytes(model.SerializeToString(deterministic=True))


class _Made:
    """The nodes that make a large tensor of quantised ones. `used`: names of what they read."""

    def __init__(self, plain: Any, quantised: Any) -> None:
        from onnx import numpy_helper

        self._floats = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
        self._known = {tensor.name for tensor in quantised.graph.initializer}
        # In the order of the layers, so that the projections of one stand side by side.
        products = (n.input[1] for n in plain.graph.node if n.op_type == "MatMul")
        self._products = [name for name in products if name in self._floats]
        self.used: set[str] = set()

    def nodes(self, tensor: Any) -> list[Any]:
        """Those that end in a tensor of that name, in half precision. Raises WeightsError."""
        from onnx import TensorProto, helper, numpy_helper

        wanted = numpy_helper.to_array(tensor)
        parts = self._parts(tensor.name, wanted)
        found, outputs = [], []
        for name in parts:
            read = [name + suffix for suffix in (QUANTISED, SCALE, ZERO)]
            if not set(read) <= self._known:
                raise WeightsError(f"{name} was not quantised")
            self.used.update(read)
            outputs.append(f"{name}_float")
            axis = {"axis": 1} if name in self._products else {}
            found.append(
                helper.make_node("DequantizeLinear", read, outputs[-1:], outputs[-1], **axis)
            )
        if len(outputs) > 1:
            joined = f"{tensor.name}_float"
            found.append(helper.make_node("Concat", outputs, [joined], joined, axis=1))
            outputs = [joined]
        half = f"{tensor.name}_half"
        to = TensorProto.FLOAT16
        return [*found, helper.make_node("Cast", outputs, [tensor.name], half, to=to)]

    def _parts(self, name: str, wanted: NDArray[np.float16]) -> list[str]:
        if name in self._floats:
            return [name]
        for start in range(len(self._products) - PROJECTIONS + 1):
            parts = self._products[start : start + PROJECTIONS]
            if self._equal(parts, wanted):
                return parts
        raise WeightsError(f"{name} is none of the weights, nor {PROJECTIONS} of them together")

    def _equal(self, parts: list[str], wanted: NDArray[np.float16]) -> bool:
        import numpy as np

        arrays = [self._floats[name] for name in parts]
        if len({len(array) for array in arrays}) > 1:
            return False
        joined = np.concatenate(arrays, axis=1)
        return joined.shape == wanted.shape and bool(np.abs(joined - wanted).max() < ROUNDING)


def _large(tensor: Any) -> bool:
    import math

    return bool(math.prod(tensor.dims) > LARGE)


def _replace(field: Any, values: Iterable[Any]) -> None:
    kept = list(values)
    del field[:]
    field.extend(kept)


def _write(path: Path, tensors: list[Any]) -> dict[str, tuple[int, int]]:
    """Where each lies in the file: its first byte and their number."""
    from onnx import numpy_helper

    places: dict[str, tuple[int, int]] = {}
    with path.open("wb") as file:
        for tensor in tensors:
            raw = numpy_helper.to_array(tensor).tobytes()
            places[tensor.name] = file.tell(), len(raw)
            file.write(raw + bytes(-len(raw) % ALIGNED))
    return places


def _refer(model: Any, location: str, places: dict[str, tuple[int, int]]) -> None:
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        if tensor.name not in places:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        offset, length = places[tensor.name]
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
