"""Dynamic int8 quantisation: the one use of ONNX Runtime while training.

It stands here because ONNX Runtime is imported in this package only. Needs the `onnx` package of
the `train` extra.
"""

from __future__ import annotations

from pathlib import Path


def quantize_dynamic_int8(source: Path, target: Path) -> None:
    """Quantise weights per channel to int8; activations are quantised at run time.

    Per tensor, the sentence vectors keep a cosine of 0.958 to the original's; per channel 0.994
    at the same size.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
