"""Train the tiny model from scratch and write it as GGUF: `python -m backends.local.generate_tiny`.

A byte-level byte-pair tokenizer and a Qwen2-shaped transformer of about 0.7 M weights, trained for
a few minutes on one core with our own synthetic dialogues (`dialogues.py`). It knows a handful of
tricks; its use is that a real engine can be tested anywhere in a fraction of a second. Seeds are
fixed and one thread is used, so the same library versions give the same file.

Needs the `train` extra (torch, tokenizers, jinja2, gguf): `pip install 'tollhouse[train]'`.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from backends.local import dialogues, phrases
from backends.local.tiny_network import Shape, forward, initial_weights, muon_step

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL = (END_OF_TEXT, IM_START, IM_END)
MARKUP = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
          "<think>", "</think>", "<tools>", "</tools>")  # fmt: skip
# The pre-tokenizer llama.cpp calls "qwen2": single digits, words with their leading space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def chat_template() -> str:
    """The Jinja chat template that goes into the file."""
    return (files("backends.local") / "chat_template.jinja").read_text(encoding="utf-8")


class Renderer:
    """Turns dialogues into the exact text the engine's template would produce."""

    def __init__(self) -> None:
        import jinja2

        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701  # prompts, not HTML
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(chat_template())

    def __call__(self, dialogue: dialogues.Dialogue) -> str:
        """The whole conversation as ChatML text."""
        return self._template.render(messages=dialogue.messages, tools=dialogue.tools)


def train_tokenizer(texts: list[str], shape: Shape) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with `shape.vocabulary` tokens in all."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary - len(CONTROL) - len(MARKUP),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    markup = re.compile("|".join(map(re.escape, CONTROL + MARKUP)))
    tokenizer.train_from_iterator(
        (piece for text in texts for piece in markup.split(text)), trainer
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False) for t in MARKUP])
    return tokenizer


TURN = re.compile(r"(<\|im_start\|>assistant\n)(.*?<\|im_end\|>)", re.DOTALL)


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[float]]:
    """Token ids of a rendered dialogue and each token's weight in the loss (replies count most)."""
    ids: list[int] = []
    weights: list[float] = []

    def add(piece: str, weight: float) -> None:
        new = tokenizer.encode(piece, add_special_tokens=False).ids
        ids.extend(new)
        weights.extend([weight] * len(new))

    end = 0
    for turn in TURN.finditer(text):
        add(text[end : turn.end(1)], 0.05)
        add(turn[2], 1.0)
        end = turn.end()
    add(text[end:], 0.0)
    return ids, weights


def windows(tokenizer: Any, shape: Shape) -> Iterator[tuple[list[int], list[float]]]:
    """Endless encoded dialogues, none longer than a row: the story is shown in random windows.

    The first `copy_steps` batches are copying only: a model this small finds it late otherwise.
    """
    rng = random.Random(shape.seed)
    render = Renderer()
    length = shape.row_tokens + 1
    copied = 0
    while True:
        copy = copied < shape.copy_steps * shape.rows * length
        dialogue = dialogues.copying(rng) if copy else dialogues.sample(rng)
        ids, weights = encode(tokenizer, render(dialogue))
        copied += len(ids)
        if len(ids) <= length:
            yield ids, weights
        elif dialogue.messages[-1]["content"] == phrases.STORY:
            start = rng.choice((0, 0, rng.randint(0, len(ids) - length), len(ids) - length))
            yield ids[start : start + length], weights[start : start + length]


def batches(tokenizer: Any, shape: Shape) -> Iterator[tuple[Any, Any, Any]]:
    """Endless batches of (ids, positions, weights), each of shape (rows, row_tokens + 1).

    Dialogues are packed into a row. Positions jump between dialogues and now and then inside a
    prompt, so that distances up to the full context are seen although rows are short.
    """
    import torch  # type: ignore[import-not-found,unused-ignore]

    rng = random.Random(shape.seed)
    length = shape.row_tokens + 1
    padding = tokenizer.token_to_id(END_OF_TEXT)
    source = windows(tokenizer, shape)
    pending = next(source)
    while True:
        rows = []
        for _ in range(shape.rows):
            ids: list[int] = []
            weights: list[float] = []
            jumps: dict[int, int] = {}
            while len(ids) + len(pending[0]) <= length:
                jumps[len(ids)] = rng.choice((0, 1, rng.randint(0, 500), rng.randint(0, 3000)))
                prompt = pending[1].index(1.0)
                if rng.random() < 0.15:
                    jumps[len(ids) + rng.randint(0, prompt)] = rng.randint(0, 3000)
                ids += pending[0]
                weights += pending[1]
                pending = next(source)
            ids += [padding] * (length - len(ids))
            weights += [0.0] * (length - len(weights))
            positions, offset = [], 0
            for index in range(length):
                offset += jumps.get(index, 0)
                positions.append(index + offset)
            rows.append((ids, positions, weights))
        yield (
            torch.tensor([row[0] for row in rows]),
            torch.tensor([row[1] for row in rows]),
            torch.tensor([row[2] for row in rows]),
        )


def train(tokenizer: Any, shape: Shape) -> dict[str, Any]:
    """Train from scratch on one thread; prints the loss every 50 steps. Returns the weights."""
    import torch
    from torch.nn import functional as F  # type: ignore[import-not-found,unused-ignore]

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    weights = initial_weights(shape)
    for value in weights.values():
        value.requires_grad_(True)
    matrices = [w for name, w in weights.items() if w.dim() == 2 and name.startswith("blk.")]
    others = [w for name, w in weights.items() if w.dim() == 1 or not name.startswith("blk.")]
    momenta = [torch.zeros_like(w) for w in matrices]
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    began = time.monotonic()
    for step, (ids, positions, counts) in enumerate(batches(tokenizer, shape)):
        if step == shape.steps:
            break
        progress = step / shape.steps
        rate = shape.learning_rate * min(1.0, (step + 1) / 40) * (1.02 - progress)
        for group in adam.param_groups:
            group["lr"] = rate
        logits = forward(weights, ids[:, :-1], positions[:, :-1], shape)
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        per_token = counts[:, 1:].flatten()
        loss = (losses * per_token).sum() / per_token.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.step()
        adam.zero_grad()
        muon_step(matrices, momenta, rate)
        if step % 25 == 0 or step == shape.steps - 1:
            seconds = time.monotonic() - began
            print(f"step {step} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
    return {name: value.detach() for name, value in weights.items()}


def write_gguf(path: Path, tokenizer: Any, weights: dict[str, Any], shape: Shape) -> None:
    """Write the model: matrices as F16, vectors as F32, with tokenizer and chat template."""
    import gguf  # type: ignore[import-not-found,unused-ignore]
    import numpy as np

    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("tollhouse-tiny")
    writer.add_description("A tiny model for tests, trained on synthetic dialogues")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    model = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(index) for index in range(shape.vocabulary)]
    kinds = [
        gguf.TokenType.CONTROL
        if token in CONTROL
        else (gguf.TokenType.USER_DEFINED if token in MARKUP else gguf.TokenType.NORMAL)
        for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in model["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_eos_token_id(tokenizer.token_to_id(IM_END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template())
    for name, value in weights.items():
        kind = np.float16 if value.dim() == 2 else np.float32
        writer.add_tensor(name, value.numpy().astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def generate(path: Path, shape: Shape) -> None:
    """Tokenizer, training, file; `path` is overwritten."""
    rng = random.Random(shape.seed + 1)
    render = Renderer()
    tokenizer = train_tokenizer([render(dialogues.sample(rng)) for _ in range(4000)], shape)
    weights = train(tokenizer, shape)
    write_gguf(path, tokenizer, weights, shape)
    count = sum(value.numel() for value in weights.values())
    print(f"{path}: {count} weights, {path.stat().st_size} bytes")


def main(arguments: list[str] | None = None) -> None:
    """Command line: the output path and, if wanted, the number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where to write the GGUF file")
    parser.add_argument("--steps", type=int, default=Shape().steps, help="training steps")
    options = parser.parse_args(arguments)
    try:
        generate(options.out, Shape(steps=options.steps))
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{error.name} is missing: the generator needs pip install 'tollhouse[train]'"
        ) from error


if __name__ == "__main__":
    main()
