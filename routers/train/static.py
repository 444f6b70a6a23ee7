"""Static token vectors distilled from an encoder: a look-up and a mean instead of a transformer.

A token's vector starts as the encoder's own for that token alone, projected on the principal axes
of the sentence vectors, and is then trained so that the mean over a text's tokens points where the
encoder's sentence vector points. The start is the idea of model2vec (MinishLab, 2024); tokens that
no training text holds keep it. The table is stored in 4 bits, one scale a token.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

WIDTH = 192
EPOCHS = 3
BATCH = 512
RATE = 2e-3
SEED = 20_250_701
OPSET = 17
# [CLS], [SEP] and [PAD] say nothing about a text.
SILENT = (0, 101, 102)

Floats = NDArray[np.float32]


class Distilled(msgspec.Struct, frozen=True):
    """`table` [tokens, width] as it is stored, after rounding. `kept`: share of the sentence
    vectors' variance on the axes. `cosine`: mean cosine to the encoder's projected vectors, on
    the texts it was trained on."""

    table: Floats
    kept: float
    cosine: float


def distil(tokens: list[list[int]], sentences: Floats, alone: Floats) -> Distilled:
    """`tokens` of each text, without special ones; its sentence vector [n, width]; and the vector
    of each token `alone` [vocabulary, width]. Deterministic on one thread."""
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    mean = sentences.mean(axis=0)
    axes, kept = _axes(sentences - mean)
    target = _unit((sentences - mean) @ axes)
    rank = np.log1p(np.arange(len(alone))) / np.log(len(alone))
    start = ((_unit(alone) - mean) @ axes * (0.2 + 0.8 * rank)[:, None]).astype(np.float32)
    bag = torch.nn.EmbeddingBag(len(alone), WIDTH, mode="mean")
    bag.weight.data = torch.tensor(start)
    known = [i for i, ids in enumerate(tokens) if ids]
    goal = torch.tensor(target[known].astype(np.float32))
    optimiser = torch.optim.Adam(bag.parameters(), lr=RATE)
    rng = np.random.default_rng(SEED)
    for epoch in range(EPOCHS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - epoch / EPOCHS)
        order = rng.permutation(len(known))
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            said = bag(*_flat([tokens[known[i]] for i in chosen]))
            loss = (1 - torch.nn.functional.cosine_similarity(said, goal[chosen])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        sys.stderr.write(f"\rdistilled: epoch {epoch + 1} of {EPOCHS}")
    sys.stderr.write("\n")
    table = unpack(*pack(bag.weight.detach().numpy()))
    texts = _means(table, [tokens[i] for i in known])
    return Distilled(table, kept, float((texts * target[known]).sum(axis=1).mean()))


def _axes(centred: Floats) -> tuple[Floats, float]:
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    order = np.argsort(values)[::-1][:WIDTH]
    axes = vectors[:, order]
    # The sign of an eigenvector is arbitrary: fix it, so that every run gives the same table.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes.astype(np.float32), float(values[order].sum() / values.sum())


def _unit(vectors: Floats) -> Floats:
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found: Floats = (vectors / length).astype(np.float32)
    return found


def _flat(batch: list[list[int]]) -> tuple[Any, Any]:
    import torch

    starts = np.cumsum([0] + [len(ids) for ids in batch[:-1]])
    return torch.tensor(np.concatenate(batch)), torch.tensor(starts)


def _means(table: Floats, tokens: list[list[int]]) -> Floats:
    return _unit(np.stack([table[ids].mean(axis=0) for ids in tokens]))


def pack(table: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """[tokens, width / 2]: two values of 4 bits a byte, the first half of a vector in the high
    bits; and [tokens, 1]: scales. Value = (bits - 8) * scale."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-6) / 7
    scale = scale.astype(np.float16).astype(np.float32)
    bits = np.clip(np.rint(table / scale) + 8, 0, 15).astype(np.uint8)
    half = table.shape[1] // 2
    return (bits[:, :half] << 4) | bits[:, half:], scale


def unpack(packed: NDArray[np.uint8], scale: Floats) -> Floats:
    bits = np.hstack([packed >> 4, packed & 15]).astype(np.float32)
    return ((bits - 8) * scale).astype(np.float32)


def write_graph(table: Floats, path: Path) -> None:
    """The table as a model with the inputs and the output of an encoder: `input_ids` and
    `attention_mask`, int64 [batch, tokens]; `sentence`, float32 [batch, width], of unit length.
    Only plain operators, which every execution provider has."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    packed, scale = pack(table)
    for token in SILENT:
        scale[token] = 0.0
    constants = {
        "packed": packed,
        "scale": scale.astype(np.float16).ravel(),
        "sixteenth": np.array(1 / 16, dtype=np.float32),
        "sixteen": np.array(16, dtype=np.float32),
        "eight": np.array(8, dtype=np.float32),
        "tiny": np.array(1e-9, dtype=np.float32),
        "one": np.array([1], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
    }
    node = helper.make_node
    # The mean is a product of the tokens' scales with their values; the halves of a byte are taken
    # apart after it where that can be, for then there is one row instead of a row for each token.
    nodes = [
        node("Gather", ["scale", "input_ids"], ["half_scales"]),
        node("Cast", ["half_scales"], ["scales"], to=TensorProto.FLOAT),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Mul", ["scales", "mask"], ["weights"]),
        node("Unsqueeze", ["weights", "one"], ["row"]),
        node("Gather", ["packed", "input_ids"], ["bytes"]),
        node("Cast", ["bytes"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "sixteenth"], ["shifted"]),
        node("Floor", ["shifted"], ["high"]),
        node("MatMul", ["row", "high"], ["sum_high"]),
        node("MatMul", ["row", "numbers"], ["sum_both"]),
        node("Mul", ["sum_high", "sixteen"], ["sum_base"]),
        node("Sub", ["sum_both", "sum_base"], ["sum_low"]),
        node("Concat", ["sum_high", "sum_low"], ["unsigned"], axis=2),
        node("ReduceSum", ["row", "last"], ["total"], keepdims=1),
        node("Mul", ["total", "eight"], ["shift"]),
        node("Sub", ["unsigned", "shift"], ["only"]),
        node("Squeeze", ["only", "one"], ["sum"]),
        node("ReduceL2", ["sum"], ["length"], axes=[1], keepdims=1),
        node("Max", ["length", "tiny"], ["divisor"]),
        node("Div", ["sum", "divisor"], ["sentence"]),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    said = [helper.make_tensor_value_info("sentence", TensorProto.FLOAT, ["batch", WIDTH])]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "static", ids, said, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
