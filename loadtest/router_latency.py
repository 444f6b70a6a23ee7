"""What a routing decision costs: each artefact and its parts, on one thread.

    python -m loadtest.router_latency --out latency.json

Every artefact is measured in a process of its own, whose numeric libraries get one thread, on texts
of 32, 128, 256 and 2,000 tokens and over two mixes: the Arena-Hard prompts, and what people say to
an assistant (CLINC150). Nothing comes from the verdict cache: each request is another partition's.
`classifier` is the model with its heads; `score` is all that a gateway awaits (rendering, event
loop, batcher, model, heads, language); `in a thread` is the same where the model may not run on the
event loop; `all` is `score` with the data classes, which a gateway looks for beforehand. Wall time
is per call; CPU time is of the whole process, over all calls. On a GPU also the requests a second
of one process and of several at once, as a gateway has workers: with micro-batches it is the
processes that are busy, not the GPU. Needs the development group (`make env-dev`), for psutil.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from routers.artefacts import HEURISTIC, find_artefact, has_gpu, open_router, shipped_artefacts
from routers.base import Router
from routers.onnx.render import Rendered
from routers.train.data import default_dir, read_records
from routers.types import Query, Turn

LENGTHS = (32, 128, 256, 2000)
MIXES = ("arena", "chat", "half arena, half chat")
ARENA = ("arena_hard_v0.1.jsonl.gz", "arena_hard_v2.0.jsonl.gz")
CHAT = "clinc150.jsonl.gz"
# Prompts of each kind, and texts of each length. Different ones: a repeated text flatters caches.
PROMPTS, TEXTS = 200, 24
# Calls on each set of texts, and nanoseconds after which a slow artefact has been asked enough.
CALLS, ENOUGH = 240, 2_000_000_000
LONG = 60.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
NOT_MEASURED = "not measured"
# Requests under way at once in a process when throughput is measured, how many in all, and how many
# before anything is counted.
CLIENTS, REQUESTS, FIRST = 256, 20_000, 1_000
# So many processes at once, where there are as many cores.
PROCESSES = (1, 4, 8)

T = TypeVar("T")


class _Prompt(msgspec.Struct):
    prompt: str


class _Said(msgspec.Struct):
    text: str


@dataclass(frozen=True)
class Figure:
    """Microseconds. `cpu` is the mean over the calls."""

    mean: float
    p50: float
    p99: float
    cpu: float
    calls: int


def figure(spent: Sequence[int], cpu: int) -> Figure:
    """From nanoseconds of each call, and of all of them."""
    ordered = sorted(spent)
    return Figure(
        mean=round(statistics.fmean(ordered) / 1e3, 1),
        p50=round(ordered[len(ordered) // 2] / 1e3, 1),
        p99=round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e3, 1),
        cpu=round(cpu / len(ordered) / 1e3, 1),
        calls=len(ordered),
    )


def measure(what: Callable[[T], object], on: Sequence[T]) -> Figure:
    rounds = max(1, CALLS // len(on))
    for value in on[:10]:
        what(value)
    spent = []
    cpu = time.process_time_ns()
    began = time.perf_counter_ns()
    for value in [*on] * rounds:
        start = time.perf_counter_ns()
        if start - began > ENOUGH:
            break
        what(value)
        spent.append(time.perf_counter_ns() - start)
    return figure(spent, time.process_time_ns() - cpu)


async def measure_async(what: Callable[[T], Awaitable[object]], on: Sequence[T]) -> Figure:
    rounds = max(1, CALLS // len(on))
    for value in on[:10]:
        await what(value)
    spent = []
    cpu = time.process_time_ns()
    began = time.perf_counter_ns()
    for value in [*on] * rounds:
        start = time.perf_counter_ns()
        if start - began > ENOUGH:
            break
        await what(value)
        spent.append(time.perf_counter_ns() - start)
    return figure(spent, time.process_time_ns() - cpu)


def spread(values: Iterable[str], most: int) -> list[str]:
    """`most` of them, evenly over the file."""
    found = [value for value in values if value.strip()]
    step = max(1, len(found) // most)
    return found[::step][:most]


def mixes(data: Path) -> dict[str, list[str]]:
    """Raises routers.train.data.DataError."""
    hard = [row.prompt for name in ARENA for row in read_records(data / name, _Prompt)]
    arena = spread(hard, PROMPTS)
    chat = spread((row.text for row in read_records(data / CHAT, _Said)), PROMPTS)
    both = [text for pair in zip(arena, chat, strict=False) for text in pair]
    return dict(zip(MIXES, (arena, chat, both), strict=True))


def by_length(material: Sequence[str], directory: Path | None) -> dict[str, list[str]]:
    """Texts of so many tokens by the artefact's tokenizer, special ones included; of four
    characters a token where there is none."""
    import tokenizers

    tokenizer: Any = None
    if directory is not None:
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.no_truncation()
    found: dict[str, list[str]] = {f"{tokens} tokens": [] for tokens in LENGTHS}
    for tokens in LENGTHS:
        for number in range(TEXTS):
            text = "\n".join([*material[number * 7 :], *material[: number * 7]])[: tokens * 8]
            end = tokens * 4
            if tokenizer is not None:
                end = int(tokenizer.encode(text).offsets[: tokens - 1][-1][1])
            found[f"{tokens} tokens"].append(text[:end])
    return found


Stage = Callable[[Sequence[str]], Figure]


def stages(directory: Path) -> dict[str, Stage]:
    """The parts of a score by name, each with what goes into it prepared beforehand."""
    from routers.heuristics import surface
    from routers.onnx.encoder import load_encoder
    from routers.onnx.heads import load_heads
    from routers.onnx.manifest import load_manifest
    from routers.onnx.render import render
    from routers.onnx.router import Classifier
    from routers.onnx.session import load_session
    from routers.onnx.texts import load_texts
    from routers.onnx.tokenizer import load_tokenizer

    most = load_manifest(directory).max_tokens
    tokenizer = load_tokenizer(directory / "tokenizer.json", most)
    session, heads = load_session(directory), load_heads(directory)
    texts, encoder = load_texts(directory), load_encoder(directory, most)
    classifier = Classifier(encoder, heads)

    def prepared(text: str) -> Rendered:
        return render(asked(text))

    parts: dict[str, tuple[Callable[[str], Any], Callable[[Any], object]]] = {
        "render": (asked, render),
        "tokenise": (lambda t: prepared(t).text, tokenizer.encode),
        "encoder": (lambda t: [tokenizer.encode(prepared(t).text)], session.embed),
        "surface": (prepared, surface),
        "heads": (
            lambda t: encoder.read([prepared(t)]),
            lambda r: heads.predict(r.sentences, r.surfaces, r.demands),
        ),
        "topics": (
            lambda t: (encoder.read([prepared(t)]).sentences, [prepared(t).text]),
            lambda pair: heads.name_topics(*pair),
        ),
        "language": (lambda t: prepared(t).text, texts.language),
        "classifier": (lambda t: [prepared(t)], classifier),
        "detect": (lambda t: t, texts.detect),
    }
    return {name: _stage(prepare, run) for name, (prepare, run) in parts.items()}


def _stage(prepare: Callable[[str], Any], run: Callable[[Any], object]) -> Stage:
    return lambda texts: measure(run, [prepare(text) for text in texts])


def asked(text: str, partition: str = "") -> Query:
    return Query((Turn("user", text),), partition=partition)


class Scoring:
    """A router asked by a new partition each time, so that it never remembers."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._asked = 0

    async def score(self, text: str) -> None:
        self._asked += 1
        score = await self._router.score(asked(text, str(self._asked)), deadline=LONG)
        if score.unclassified or score.cached:
            raise RuntimeError(f"not scored: {score.unclassified or 'cached'}")

    async def whole(self, text: str) -> None:
        self._router.detect(text)
        await self.score(text)


async def whole(router: Router, texts: dict[str, list[str]]) -> dict[str, dict[str, Figure]]:
    """`score` and `all` by name and set of texts."""
    scoring = Scoring(router)
    found: dict[str, dict[str, Figure]] = {"score": {}, "all": {}}
    for text in texts[MIXES[2]][:50]:
        await scoring.whole(text)  # until the batcher knows how long the model takes
    for name, some in texts.items():
        found["score"][name] = await measure_async(scoring.score, some)
        found["all"][name] = await measure_async(scoring.whole, some)
    return found


async def in_a_thread(directory: Path, texts: dict[str, list[str]]) -> dict[str, Figure]:
    """`score` of a router whose model is never run on the event loop."""
    from routers.onnx.encoder import load_encoder
    from routers.onnx.heads import load_heads
    from routers.onnx.manifest import load_manifest
    from routers.onnx.router import ON_CPU, Classifier, OnnxRouter, load_extras

    heads = load_heads(directory)
    model = Classifier(load_encoder(directory, load_manifest(directory).max_tokens), heads)
    limits = msgspec.structs.replace(ON_CPU, at_once=0.0)
    router = OnnxRouter(model, facts={}, extras=load_extras(directory, heads), limits=limits)
    scoring = Scoring(router)
    try:
        return {name: await measure_async(scoring.score, some) for name, some in texts.items()}
    finally:
        await router.aclose()


async def throughput(scoring: Scoring, texts: Sequence[str], requests: int = REQUESTS) -> float:
    """Requests a second with CLIENTS under way at once, so that micro-batches fill."""
    work = iter(range(requests))

    async def client() -> None:
        for number in work:
            await scoring.score(texts[number % len(texts)])

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return requests / (time.perf_counter() - began)


async def _throughput(name: str, data: Path, requests: int) -> float:
    """As `throughput`, of a process that says when it is ready and waits until it may begin."""
    router = open_router(name)
    scoring, texts = Scoring(router), mixes(data)[MIXES[2]]
    try:
        for text in texts[:50]:
            await scoring.score(text)  # until the batcher knows how long the model takes
        await throughput(scoring, texts, FIRST)
        print("ready", flush=True)
        sys.stdin.readline()
        return await throughput(scoring, texts, requests)
    finally:
        await router.aclose()


def together(name: str, data: Path, processes: int, requests: int = REQUESTS) -> int:
    """Requests a second of so many processes at once, each with a router of its own."""
    command = [sys.executable, "-m", "loadtest.router_latency", "--part", "throughput"]
    command += ["--artefact", name, "--data", str(data), "--requests", str(requests)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(command, env=_one_thread(), **pipes)  # type: ignore[call-overload]
        for _ in range(processes)
    ]
    try:
        for process in started:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name}: a process ended before it was ready")
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        return round(sum(float(process.stdout.readline()) for process in started))
    finally:
        for process in started:
            process.kill()
            process.communicate()


async def on_gpu(router: Router, texts: dict[str, list[str]]) -> dict[str, Any] | str:
    """Latency alone and throughput together; `not measured` where the model runs on a CPU."""
    if router.describe().get("provider") != "CUDAExecutionProvider":
        return NOT_MEASURED
    scoring = Scoring(router)
    alone = {name: asdict(await measure_async(scoring.score, texts[name])) for name in texts}
    return {"batch_1": alone}


def child(name: str, data: Path, gpu: bool) -> dict[str, Any]:
    """Everything about one artefact. To be run in a process that ends afterwards."""
    directory = None if name == HEURISTIC else find_artefact(name)
    kinds = mixes(data)
    texts = by_length(kinds["arena"], directory) | kinds
    parts = {} if directory is None or gpu else stages(directory)
    found = {
        part: {kind: stage(some) for kind, some in texts.items()} for part, stage in parts.items()
    }
    measured = _run(_child(name, texts, gpu))
    if directory is not None and not gpu:
        measured["in a thread"] = _run(in_a_thread(directory, texts))
    if gpu:
        return {"artefact": name, "gpu": measured}
    figures = {k: {t: asdict(f) for t, f in v.items()} for k, v in (found | measured).items()}
    return {"artefact": name, "us": figures, "files": files(directory)}


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On the event loop that a gateway has."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def _child(name: str, texts: dict[str, list[str]], gpu: bool) -> Any:
    router = open_router(name, gpu=gpu)
    try:
        return await (on_gpu if gpu else whole)(router, texts)
    finally:
        await router.aclose()


def files(directory: Path | None) -> dict[str, int]:
    """Bytes by name."""
    return {f.name: f.stat().st_size for f in sorted(directory.iterdir())} if directory else {}


def memory(name: str) -> dict[str, float]:
    """Resident MiB of a process that has the router's code but no model, and with this one loaded
    and asked a few times; and seconds that loading took."""
    import psutil  # type: ignore[import-untyped]  # no types are published with it

    import routers.onnx.router  # noqa: F401  # its code belongs to both figures

    me = psutil.Process()
    before = me.memory_info().rss / 2**20
    began = time.perf_counter()
    router = open_router(name, gpu=False)
    seconds = time.perf_counter() - began

    async def ask() -> None:
        for text in ("Why is the sky blue?", "Prove it. " * 500):
            router.detect(text)
            await router.score(asked(text), deadline=LONG)
        await router.aclose()

    asyncio.run(ask())
    after = me.memory_info().rss / 2**20
    return {"without": round(before, 1), "with": round(after, 1), "load_s": round(seconds, 3)}


def isolated(args: Sequence[str]) -> Any:
    """The JSON that this tool prints in a process of its own, with one thread for arithmetic."""
    command = [sys.executable, "-m", "loadtest.router_latency", *args]
    done = subprocess.run(command, env=_one_thread(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _one_thread() -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['artefact']}: microseconds, mean / p50 / p99 (CPU mean)")
    kinds = list(result["us"]["score"])
    print(f"{'':11}" + "".join(f"{kind:>27}" for kind in kinds))
    for part, row in result["us"].items():
        cells = [
            f"{f['mean']:.0f} / {f['p50']:.0f} / {f['p99']:.0f} ({f['cpu']:.0f})"
            for f in row.values()
        ]
        print(f"{part:11}" + "".join(f"{cell:>27}" for cell in cells))
    size = sum(result["files"].values()) / 1e6
    room = result["memory"]
    print(
        f"{size:.1f} MB on disk; resident {room['without']:.0f} MiB without, {room['with']:.0f} "
        f"MiB with it; loaded in {room['load_s']:.2f} s; GPU: {_gpu(result['gpu'])}"
    )


def _gpu(found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return found
    alone = ", ".join(f"{kind} p50 {f['p50']:.0f} us" for kind, f in found["batch_1"].items())
    rates = ", ".join(f"{rate} by {number}" for number, rate in found["requests_per_s"].items())
    return f"{alone}; requests/s with micro-batches, by so many processes: {rates}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="loadtest.router_latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--artefact", action="append", help="name or directory; all without it")
    parser.add_argument("--data", type=Path, default=default_dir())
    parser.add_argument("--out", type=Path, help="JSON with every figure")
    parts = ("cpu", "gpu", "memory", "throughput")
    parser.add_argument("--part", choices=parts, help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=REQUESTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part == "throughput":
        print(_run(_throughput(args.artefact[0], args.data, args.requests)), flush=True)
        return 0
    if args.part is not None:
        (name,) = args.artefact
        measured = (
            memory(name) if args.part == "memory" else child(name, args.data, args.part == "gpu")
        )
        print(json.dumps(measured))
        return 0
    results = [_all(name, args.data) for name in args.artefact or [*shipped_artefacts(), HEURISTIC]]
    for result in results:
        show(result)
    if args.out is not None:
        args.out.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    return 0


def _all(name: str, data: Path) -> dict[str, Any]:
    def part(which: str) -> Any:
        return isolated(["--artefact", name, "--data", str(data), "--part", which])

    gpu = part("gpu")["gpu"] if name != HEURISTIC and has_gpu() else NOT_MEASURED
    if gpu != NOT_MEASURED:
        possible = [number for number in PROCESSES if number <= (os.cpu_count() or 1)]
        gpu["requests_per_s"] = {number: together(name, data, number) for number in possible}
    return {**part("cpu"), "memory": part("memory"), "gpu": gpu}


def machine() -> dict[str, object]:
    import numpy
    import onnxruntime

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
    }


if __name__ == "__main__":
    sys.exit(main())
