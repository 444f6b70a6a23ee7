"""The graph for a GPU, run on the CPU, and what happens where CUDA does not start."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import routers.onnx.session as sessions
from gateway import compose
from gateway.config.load import parse_config
from routers.artefacts import BEST, FAST, find_artefact, has_gpu
from routers.evals import graphs
from routers.evals.graphs import agreement
from routers.onnx.manifest import ArtefactError
from routers.onnx.router import OnnxRouter
from routers.onnx.session import (
    CPU,
    CUDA,
    GPU_MODEL,
    MODEL,
    WEIGHTS,
    Session,
    devices,
    load_graph,
    load_session,
    no_cuda,
)
from routers.onnx.tokenizer import load_tokenizer

FOLDER = find_artefact(BEST)
TEXTS = (
    "Is the earth flat?",
    "Write a function that merges two sorted lists.",
    "A patient of 71 years on apixaban needs surgery. Plan the anticoagulation. " * 12,
    "Prove that there is no largest prime.",
)
# Operators that ONNX Runtime 1.22 has no CUDA kernel for, with these types.
ON_THE_CPU_ONLY = (b"DynamicQuantizeLinear", b"MatMulInteger", b"DequantizeLinear")


@pytest.fixture(scope="module")
def tokens() -> list[list[int]]:
    tokenizer = load_tokenizer(FOLDER / "tokenizer.json", 160)
    return [tokenizer.encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def half() -> Session:
    return load_graph(FOLDER / GPU_MODEL)


@pytest.fixture
def probed() -> Iterator[None]:
    """Nothing that was found out of this machine is kept, before or after."""
    for found in (no_cuda, has_gpu):
        found.cache_clear()
    yield
    for found in (no_cuda, has_gpu):
        found.cache_clear()


def test_it_says_what_its_sibling_says(half: Session, tokens: list[list[int]]) -> None:
    int8 = load_session(FOLDER)
    for text in tokens:
        mine, other = half.embed([text])[0], int8.embed([text])[0]
        assert mine.dtype == np.float32
        assert np.linalg.norm(mine) == pytest.approx(1.0, abs=1e-5)
        assert mine @ other > 0.98


def test_a_text_does_not_depend_on_its_batch(half: Session, tokens: list[list[int]]) -> None:
    together = half.embed(tokens)
    alone = np.concatenate([half.embed([text]) for text in tokens])
    assert np.abs(together - alone).max() < 1e-3


def test_no_operator_is_left_that_only_a_cpu_has(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*sessions.FOLD_WEIGHTS)
    options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(FOLDER / GPU_MODEL), options, providers=[CPU])
    as_run = (tmp_path / "as_run.onnx").read_bytes()
    assert b"SkipLayerNormalization" in as_run
    assert not [name for name in ON_THE_CPU_ONLY if name in as_run]


def test_most_decisions_are_the_same_by_both_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = agreement(FOLDER, "a few", TEXTS)
    assert (found.set, found.prompts) == ("a few", len(TEXTS))
    assert found.same >= 0.5
    assert 0.98 < found.cosine < 0.9999
    assert 0 < found.apart < 0.05
    # One graph beside itself: nothing differs.
    monkeypatch.setattr(graphs, "GPU_MODEL", MODEL)
    found = agreement(FOLDER, "a few", TEXTS)
    assert (found.same, found.apart, found.domain, found.task) == (1.0, 0.0, 1.0, 1.0)
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        monkeypatch.setattr(graphs, "GPU_MODEL", "none.onnx")
        agreement(FOLDER, "a few", TEXTS)


def test_both_graphs_read_one_file_of_weights() -> None:
    sizes = {name: (FOLDER / name).stat().st_size for name in (MODEL, GPU_MODEL, WEIGHTS)}
    assert sizes[WEIGHTS] > 20_000_000
    assert sizes[MODEL] + sizes[GPU_MODEL] < 1_000_000


@pytest.mark.parametrize("name", [GPU_MODEL, WEIGHTS])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "artefact"))
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ArtefactError, match="sha256") as caught:
        OnnxRouter.load(folder)
    assert caught.value.file == name
    shutil.rmtree(folder)


class Driver:
    """NVIDIA's driver as far as it is asked, with so many devices, or failing with a code."""

    def __init__(self, count: int, code: int = 0) -> None:
        self._count, self._code = count, code

    def __call__(self, name: str) -> Driver:
        assert name == sessions.DRIVER
        return self

    def cuInit(self, flags: int) -> int:  # the driver's name
        return self._code

    def cuDeviceGetCount(self, into: Any) -> int:
        into._obj.value = self._count
        return 0


def test_devices_are_those_that_the_driver_shows() -> None:
    assert devices(Driver(2)) == 2
    assert devices(Driver(0)) == 0
    # 34: a library that only stands in for the driver, as images for building have it.
    assert devices(Driver(2, code=34)) == 0

    def none(name: str) -> Any:
        return ctypes.CDLL("libthere-is-no-such.so")

    assert devices(none) == 0


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this runtime has CUDA")
def test_without_cuda_the_cpu_serves_and_says_why(probed: None) -> None:
    session = load_session(FOLDER, gpu=True)
    assert session.provider == CPU
    assert "without CUDA" in str(session.why_cpu)
    assert not has_gpu()
    assert find_artefact("auto").name == FAST


def test_a_runtime_with_cuda_without_a_device_is_no_gpu(
    probed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "available", lambda: (CUDA, CPU))
    monkeypatch.setattr(sessions, "devices", lambda: 0)
    assert "driver" in str(no_cuda())
    assert not has_gpu()
    assert find_artefact("auto").name == FAST


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this runtime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_where_cuda_does_not_start_the_graph_for_the_cpu_runs(
    probed: None, monkeypatch: pytest.MonkeyPatch, tokens: list[list[int]]
) -> None:
    """A device and a runtime that says it has CUDA, whose libraries cannot be loaded."""
    monkeypatch.setattr(sessions, "available", lambda: (CUDA, CPU))
    monkeypatch.setattr(sessions, "devices", lambda: 1)
    assert no_cuda() is None
    session = load_session(FOLDER, gpu=True)
    assert (session.provider, session.why_cpu) == (CPU, sessions.NOT_STARTED)
    int8 = load_session(FOLDER)
    assert np.array_equal(session.embed(tokens[:1]), int8.embed(tokens[:1]))
    assert not has_gpu()
    assert find_artefact("auto").name == FAST


def test_an_artefact_without_a_graph_for_a_gpu_runs_on_the_cpu() -> None:
    session = load_session(find_artefact(FAST), gpu=True)
    assert session.provider == CPU
    assert session.why_cpu == "the artefact has no graph for a GPU"


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="no GPU, or no onnxruntime-gpu")
def test_a_gpu_computes_what_the_cpu_does(half: Session, tokens: list[list[int]]) -> None:
    session = load_session(FOLDER, gpu=True)
    assert (session.provider, session.why_cpu) == (CUDA, None)
    found, expected = session.embed(tokens), half.embed(tokens)
    assert np.sum(found * expected, axis=1).min() > 0.999


@pytest.mark.parametrize(
    ("runtime", "gpu", "told"),
    [
        ("onnxruntime-gpu", False, True),
        ("onnxruntime-gpu", True, False),
        ("onnxruntime", False, False),
    ],
)
def test_a_runtime_for_a_gpu_that_finds_none_is_told(
    runtime: str,
    gpu: bool,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(compose, "check_distributions", lambda: runtime)
    monkeypatch.setattr(compose, "has_gpu", lambda: gpu)
    monkeypatch.setattr(compose, "no_cuda", lambda: "no device")
    compose.build_router(parse_config(f'[router]\nartefact = "{FAST}"'))
    expected = "onnxruntime-gpu is installed, and no GPU is used: no device"
    assert caplog.messages == ([expected] if told else [])
