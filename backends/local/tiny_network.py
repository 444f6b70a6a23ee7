"""The tiny model as arithmetic: its sizes, first weights, Qwen2 forward pass and update rule.

Needs torch (the `train` extra), imported inside the functions. Type checkers may run without it.
"""

import math
from typing import Any

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """Sizes of the model and of its training run."""

    vocabulary: int = 640
    layers: int = 3
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 384
    context: int = 8192
    rope_base: float = 10_000.0
    epsilon: float = 1e-6
    steps: int = 700
    rows: int = 6
    row_tokens: int = 256
    copy_steps: int = 150
    learning_rate: float = 3e-3
    seed: int = 20

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


def initial_weights(shape: Shape) -> dict[str, Any]:
    """Fresh parameters under their GGUF names; matrices are (out, in)."""
    import torch  # type: ignore[import-not-found,unused-ignore]

    torch.manual_seed(shape.seed)
    kv_width = shape.kv_heads * shape.head_width
    weights = {"token_embd.weight": torch.randn(shape.vocabulary, shape.width) * 0.1}
    residual = 0.3 / math.sqrt(2 * shape.layers)

    def matrix(out: int, into: int, scale: float = 1.0) -> Any:
        return torch.randn(out, into) * (scale / math.sqrt(into))

    for layer in range(shape.layers):
        block = {
            "attn_norm.weight": torch.ones(shape.width),
            "attn_q.weight": matrix(shape.width, shape.width),
            "attn_q.bias": torch.zeros(shape.width),
            "attn_k.weight": matrix(kv_width, shape.width),
            "attn_k.bias": torch.zeros(kv_width),
            "attn_v.weight": matrix(kv_width, shape.width),
            "attn_v.bias": torch.zeros(kv_width),
            "attn_output.weight": matrix(shape.width, shape.width, residual),
            "ffn_norm.weight": torch.ones(shape.width),
            "ffn_gate.weight": matrix(shape.feed_forward, shape.width),
            "ffn_up.weight": matrix(shape.feed_forward, shape.width),
            "ffn_down.weight": matrix(shape.width, shape.feed_forward, residual),
        }
        weights.update({f"blk.{layer}.{name}": value for name, value in block.items()})
    weights["output_norm.weight"] = torch.ones(shape.width)
    plant_copying(weights, shape)
    return weights


def plant_copying(weights: dict[str, Any], shape: Shape) -> None:
    """Start with an induction circuit (Olsson et al. 2022), which training would find late.

    In the first layer heads 0 and 1 look one and two tokens back, by their biases alone. In the
    second, head 2 looks for places whose previous token is the current one, and copies from there.
    """
    import torch

    wide = shape.head_width
    half = wide // 2
    frequency = shape.rope_base ** (-torch.arange(half) / half)

    def directions() -> Any:
        return torch.linalg.qr(torch.randn(shape.width, wide))[0].T * math.sqrt(shape.width / wide)

    first, second = "blk.0.attn_", "blk.1.attn_"
    for head in (0, 1):
        at = slice(head * wide, (head + 1) * wide)
        angle = -(head + 1) * frequency
        weights[first + "q.weight"][at] *= 0.1
        weights[first + "q.bias"][at] = 7 * torch.cat((angle.cos(), angle.sin()))
    weights[first + "k.weight"][:wide] *= 0.1
    weights[first + "k.bias"][:half] = 7
    read, write, copy = directions(), directions(), directions()
    weights[first + "v.weight"][:wide] = 0.5 * read
    weights[first + "output.weight"][:, :wide] = 0.15 * write.T
    calm = torch.where(frequency < 0.05, 1.0, 0.1).repeat(2)[:, None]
    weights[second + "q.weight"][2 * wide : 3 * wide] = 1.2 * calm * read
    weights[second + "k.weight"][wide:] = 1.2 * calm * write
    weights[second + "v.weight"][wide:] = 0.5 * copy
    weights[second + "output.weight"][:, 2 * wide : 3 * wide] = 0.3 * copy.T


def forward(weights: dict[str, Any], ids: Any, positions: Any, shape: Shape) -> Any:
    """Qwen2 forward pass: ids and positions (rows, tokens) to logits (rows, tokens, vocabulary)."""
    import torch
    from torch.nn import functional as F  # type: ignore[import-not-found,unused-ignore]

    rows, tokens = ids.shape
    half = shape.head_width // 2
    frequency = shape.rope_base ** (-torch.arange(half) / half)
    angle = positions[:, None, :, None] * frequency
    cosine, sine = angle.cos(), angle.sin()

    def heads(x: Any, count: int) -> Any:
        return x.view(rows, tokens, count, shape.head_width).transpose(1, 2)

    def rotate(x: Any) -> Any:
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)

    def norm(x: Any, name: str) -> Any:
        return F.rms_norm(x, (shape.width,), weights[name], shape.epsilon)

    x = F.embedding(ids, weights["token_embd.weight"])
    for layer in range(shape.layers):
        own = {k.split(".", 2)[2]: v for k, v in weights.items() if k.startswith(f"blk.{layer}.")}
        h = norm(x, f"blk.{layer}.attn_norm.weight")
        q, k, v = (F.linear(h, own[f"attn_{n}.weight"], own[f"attn_{n}.bias"]) for n in "qkv")
        mixed = F.scaled_dot_product_attention(
            rotate(heads(q, shape.heads)),
            rotate(heads(k, shape.kv_heads)),
            heads(v, shape.kv_heads),
            is_causal=True,
            enable_gqa=True,
        )
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, shape.width)
        x = x + F.linear(mixed, own["attn_output.weight"])
        h = norm(x, f"blk.{layer}.ffn_norm.weight")
        gated = F.silu(F.linear(h, own["ffn_gate.weight"])) * F.linear(h, own["ffn_up.weight"])
        x = x + F.linear(gated, own["ffn_down.weight"])
    return F.linear(norm(x, "output_norm.weight"), weights["token_embd.weight"])


def muon_step(matrices: list[Any], momenta: list[Any], rate: float) -> None:
    """One step of Muon in float32, in place; clears the gradients.

    Momentum, then an orthogonal update by five Newton-Schulz iterations, scaled to the size of an
    Adam update. `torch.optim.Muon` does the same in bfloat16, four times slower on a CPU.
    """
    import torch

    with torch.no_grad():
        for matrix, momentum in zip(matrices, momenta, strict=True):
            momentum.lerp_(matrix.grad, 0.05)
            update = matrix.grad.lerp(momentum, 0.95)
            tall = update.shape[0] > update.shape[1]
            x = update.T if tall else update
            x = x / (x.norm() + 1e-7)
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            scale = 0.2 * math.sqrt(max(matrix.shape))
            matrix.mul_(1 - 0.02 * rate).add_(x.T if tall else x, alpha=-rate * scale)
            matrix.grad = None
