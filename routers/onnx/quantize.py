"""The graphs that an encoder is served as: int8 for a CPU, half precision for a GPU.

They stand here because ONNX Runtime is imported in this package only; only training calls them.
Needs the `onnx` package of the `train` extra.
"""

from __future__ import annotations

from pathlib import Path

# What follows the last layer: sums over tokens and a length, which half precision would round.
POOLING = ("Cast", "Clip", "Constant", "Div", "Mul", "ReduceL2", "ReduceSum", "Unsqueeze")


def quantize_dynamic_int8(source: Path, target: Path) -> None:
    """Quantise weights per channel to int8; activations are quantised at run time.

    Per tensor, the sentence vectors keep a cosine of 0.958 to the original's; per channel 0.994
    at the same size.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def fuse_half(source: Path, target: Path, *, heads: int, width: int) -> None:
    """Fuse the layers of a BERT into ONNX Runtime's own operators, some sixty instead of 370, and
    store them in half precision; inputs, pooling and output stay as they are.

    ONNX Runtime has no dynamic int8 on CUDA: those products run on the CPU, each with a copy there
    and back (microsoft/onnxruntime, issues 7745 and 12229).
    """
    from onnxruntime.transformers.optimizer import optimize_model

    fused = optimize_model(
        str(source),
        model_type="bert",
        num_heads=heads,
        hidden_size=width,
        opt_level=0,
        use_gpu=True,
    )
    fused.convert_float_to_float16(keep_io_types=True, op_block_list=list(POOLING))
    fused.save_model_to_file(str(target))
