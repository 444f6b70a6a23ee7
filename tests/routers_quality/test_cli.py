"""`tollhouse router score` and `router eval`, through the command line's own entry."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.cli import main
from gateway.compose import verify
from gateway.config import ConfigError, parse_config
from routers.artefacts import find_artefact, open_router, shipped_artefacts
from routers.base import FixedRouter
from routers.evals.scoring import Request, score_lines
from routers.labels import LabelRow, require_enough
from routers.types import Query, Score, Turn

Write = Callable[[list[dict[str, Any]]], Path]
FIELDS = {
    "id",
    "p_local_ok",
    "p_frontier_ok",
    "domain",
    "task",
    "language",
    "data_classes",
    "confidence",
    "model",
    "us",
}


def score(source: Path | str, output: Path | str, *more: str) -> int:
    return main(["router", "score", "--input", str(source), "--output", str(output), *more])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_gets_its_score_in_order(rows_file: Write, tmp_path: Path) -> None:
    rows = rows_file(
        [
            {"id": "b", "prompt": "What is the capital of France?"},
            {
                "id": 7,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
                "tools": [{"type": "function", "function": {"name": "look_up"}}],
            },
            {"prompt": "My card is 4111 1111 1111 1111, charge it."},
            {"id": "empty", "prompt": ""},
            {"id": "b", "prompt": "What is the capital of France?"},
        ]
    )
    assert score(rows, tmp_path / "scores.jsonl") == 0
    found = read(tmp_path / "scores.jsonl")
    assert [line["id"] for line in found] == ["b", 7, 3, "empty", "b"]
    assert all(set(line) == FIELDS for line in found[:3])
    assert all(0 < line["p_local_ok"] < 1 and line["us"] > 0 for line in found[:3])
    assert found[2]["data_classes"] == ["pii"]
    assert found[3]["unclassified"] == "empty"
    assert found[3]["p_local_ok"] is None and found[3]["p_frontier_ok"] is None
    assert found[4]["p_local_ok"] == found[0]["p_local_ok"]
    assert not list(tmp_path.glob(".*"))
    assert score(rows, tmp_path / "scores.jsonl.gz") == 0
    with gzip.open(tmp_path / "scores.jsonl.gz", "rt") as lines:
        assert [json.loads(line)["id"] for line in lines] == ["b", 7, 3, "empty", "b"]


@pytest.mark.parametrize("name", [*shipped_artefacts(), "heuristic"])
def test_artefacts_by_name_and_by_directory(name: str, rows_file: Write, tmp_path: Path) -> None:
    rows = rows_file([{"id": "a", "prompt": "Prove that there is no largest prime."}])
    assert score(rows, tmp_path / "by_name", "--artefact", name) == 0
    line = read(tmp_path / "by_name")[0]
    assert line["model"].startswith(name)
    if name != "heuristic":
        assert score(rows, tmp_path / "by_path", "--artefact", str(find_artefact(name))) == 0
        assert read(tmp_path / "by_path")[0]["p_local_ok"] == line["p_local_ok"]


@pytest.mark.parametrize("given", [".", "./", "..", "./static-192", "static-192/", "models"])
def test_only_the_very_names_of_shipped_artefacts_are_names(given: str) -> None:
    assert find_artefact(given) == Path(given)


def test_a_directory_of_a_shipped_name_is_one_by_its_path(
    rows_file: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = rows_file([{"prompt": "Hi"}])
    (tmp_path / "static-192").mkdir()
    monkeypatch.chdir(tmp_path)
    assert score(rows, tmp_path / "scores", "--artefact", "static-192") == 0
    assert score(rows, tmp_path / "scores", "--artefact", "./static-192") == 2
    assert "manifest.json: cannot be read in static-192" in capsys.readouterr().err
    config = parse_config('[router]\nartefact = "./static-192"')
    with pytest.raises(ConfigError, match=r"manifest\.json: cannot be read in static-192"):
        verify(config)


@pytest.mark.parametrize("command", ["score", "eval", "refit"])
def test_an_unknown_artefact_is_told_with_those_that_are_shipped(
    command: str, rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = str(rows_file(labelled())), str(tmp_path / "out")
    args = {
        "score": ["--input", rows, "--output", out],
        "eval": ["--data", rows],
        "refit": ["--labels", rows, "--out", out],
    }
    assert main(["router", command, *args[command], "--artefact", "statc-192"]) == 2
    said = capsys.readouterr().err
    assert "statc-192: is no directory" in said
    assert ", ".join(shipped_artefacts()) in said


def test_stdin_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = b'{"id":"x","prompt":"Hello"}\n{"id":"\\ud800","prompt":"\xff\\udfff?"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert score("-", "-", "--artefact", "heuristic") == 0
    found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["id"] for line in found] == ["x", "?"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: must be a JSON object, not a list"),
        ('{"id": "a"}', "line 2: has neither prompt nor messages"),
        ('{"prompt": 1}', "line 2: prompt must be text"),
        ('{"prompt": "a", "messages": []}', "line 2: has both prompt and messages"),
        ('{"prompt": "a", "id": NaN}', "line 2: id must be a finite number"),
        ('{"messages": [], "system": 5}', "line 2: system must be text or a list of parts"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    rows.write_text(f'{{"id": "a", "prompt": "Hi"}}\n{line}\n')
    output.write_text("what was there before")
    assert score(rows, output, "--artefact", "heuristic") == 2
    assert f"{rows}, {says}" in capsys.readouterr().err
    assert output.read_text() == "what was there before"
    assert sorted(tmp_path.iterdir()) == [rows, output]


def test_an_id_of_any_json_comes_back_as_it_was(tmp_path: Path) -> None:
    given = [1.5, True, None, [1, {"a": None}], {"x": "é"}, "", 2**53 + 1, 10**30, -7]
    rows, output = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"
    rows.write_text("".join(json.dumps({"id": id, "prompt": "Hi"}) + "\n" for id in given))
    assert score(rows, output, "--artefact", "heuristic") == 0
    found = [line["id"] for line in read(output)]
    assert found == given
    assert [type(id) for id in found] == [type(id) for id in given]


def test_the_file_behind_standard_output_goes_on_where_it_is(
    rows_file: Write, tmp_path: Path
) -> None:
    rows, out = rows_file([{"id": "a", "prompt": "Hi"}]), tmp_path / "all.jsonl"
    out.write_text("first\n")
    program = "import sys; from gateway.cli import main; sys.exit(main())"
    args = ["--input", str(rows), "--output", "/dev/stdout", "--artefact", "heuristic"]
    command = [sys.executable, "-c", program, "router", "score", *args]
    with out.open("ab") as appended:
        done = subprocess.run(command, stdout=appended, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, done.stderr
        appended.write(b"last\n")
    first, line, last = out.read_text().splitlines()
    assert (first, last) == ("first", "last")
    assert json.loads(line)["id"] == "a"


def test_a_pipe_is_written_to_and_stays(rows_file: Write, tmp_path: Path) -> None:
    rows, pipe = rows_file([{"id": "a", "prompt": "Hi"}]), tmp_path / "pipe"
    os.mkfifo(pipe)
    # Opened for both, it waits for nobody, and a line fits into a pipe's buffer.
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert score(rows, pipe, "--artefact", "heuristic") == 0
        assert pipe.is_fifo()
        assert json.loads(os.read(reader, 65536))["id"] == "a"
    finally:
        os.close(reader)


def test_a_link_stays_and_its_target_is_written(rows_file: Write, tmp_path: Path) -> None:
    rows, link, target = rows_file([{"prompt": "Hi"}]), tmp_path / "link", tmp_path / "target"
    target.write_text("old")
    link.symlink_to(target)
    assert score(rows, link, "--artefact", "heuristic") == 0
    assert link.is_symlink()
    assert read(target)[0]["id"] == 1


def test_a_full_disk_is_told_without_a_traceback(
    rows_file: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def writelines(lines: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = rows_file([{"prompt": "Hi"}])
    full = SimpleNamespace(buffer=SimpleNamespace(writelines=writelines))
    monkeypatch.setattr(sys, "stdout", full)
    assert score(rows, "-", "--artefact", "heuristic") == 1
    assert "--output -: No space left on device" in capsys.readouterr().err


def test_wrong_paths_are_named(
    rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_file([{"prompt": "Hi"}])
    assert score(tmp_path / "nowhere.jsonl", "-") == 2
    assert "nowhere.jsonl: cannot be read" in capsys.readouterr().err
    assert score(rows, tmp_path / "no" / "scores") == 2
    assert "--output" in capsys.readouterr().err
    assert score(rows, "-", "--artefact", str(tmp_path / "gone")) == 2
    gone = f"router artefact {tmp_path / 'gone'}: is no directory, and none of those"
    assert gone in capsys.readouterr().err
    rows.write_text("\n")
    assert score(rows, "-") == 2
    assert "has no lines" in capsys.readouterr().err


def labelled(n: int = 60) -> list[dict[str, Any]]:
    """Long prompts are hard for the local model, and the frontier is nearly always right."""
    return [
        {
            "id": i,
            "prompt": "Compare the two plans. " * (1 + i % 12),
            "local_ok": i % 12 < 7,
            "frontier_ok": i % 20 != 0,
        }
        for i in range(n)
    ]


def one_sided() -> list[dict[str, Any]]:
    """As feedback gives them: of each answer, whichever tier it came from."""
    sides = ("local_ok", "frontier_ok")
    return [row | {sides[i % 2]: None} for i, row in enumerate(labelled(57))]


def test_eval_prints_the_router_beside_the_baselines(
    rows_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(rows_file(labelled()))
    assert main(["router", "eval", "--data", data, "--artefact", "heuristic"]) == 0
    out = capsys.readouterr().out
    for name in ("always local", "always frontier", "random", "length", "heuristic", "router"):
        assert f"\n{name}" in out
    for name in ("APGR", "CPT20", "CPT50", "CPT80", "ECE15", "Brier", "p_frontier_ok"):
        assert name in out
    # The heuristic under the name `router` orders these rows as their length does.
    assert "does not show a gain over length: +0.000" in out


def test_eval_as_json(rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*labelled(80), {"prompt": "\u200b", "local_ok": 1, "frontier_ok": None}]
    args = ["router", "eval", "--data", str(rows_file(rows)), "--artefact", "heuristic", "--json"]
    assert main([*args, "--conformal", "0.3", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == found
    rankings = found["rankings"]
    assert set(rankings) == {"router", "length", "heuristic", "random", "oracle"}
    assert rankings["random"]["apgr"]["value"] == pytest.approx(0.5)
    assert rankings["length"]["apgr"]["low"] > 0.6
    assert rankings["router"]["apgr"] == rankings["heuristic"]["apgr"]
    assert len(found["shares"]) == len(rankings["oracle"]["quality"])
    assert found["always_local"]["value"] < found["always_frontier"]["value"]
    assert found["p_local_ok"]["rows"] >= found["rows"]
    assert found["conformal"]["kept"] >= 0.95
    assert found["beats_length"] is False


def test_rows_that_stand_ten_times_prove_no_more(
    rows_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for times in (1, 10):
        data = str(rows_file(labelled(80) * times))
        args = ["router", "eval", "--data", data, "--artefact", "heuristic"]
        assert main([*args, "--conformal", "0.2", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_eval_draws_the_curve(rows_file: Write, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data, out = str(rows_file(labelled())), tmp_path / "out"
    assert (
        main(["router", "eval", "--data", data, "--artefact", "heuristic", "--out", str(out)]) == 0
    )
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_eval_without_matplotlib_says_what_to_install(
    rows_file: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    data, out = str(rows_file(labelled())), tmp_path / "out"
    assert (
        main(["router", "eval", "--data", data, "--artefact", "heuristic", "--out", str(out)]) == 0
    )
    assert "pip install 'tollhouse[eval]'" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["eval.json"]


def test_eval_says_when_there_is_no_gap(
    rows_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"frontier_ok": row["local_ok"]} for row in labelled()]
    assert main(["router", "eval", "--data", str(rows_file(rows)), "--artefact", "heuristic"]) == 0
    assert "no share of calls shows more than the local model alone" in capsys.readouterr().out


def test_eval_sees_models_that_are_equal_on_the_whole_and_good_at_different_things(
    rows_file: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = (
        "Derive the asymptotic expansion of the integral step by step and prove each of {} claims."
    )
    rows = [
        {"prompt": hard.format(at), "local_ok": at % 4 == 0, "frontier_ok": at % 4 > 0}
        if at % 2
        else {"prompt": f"Say hello to {at}", "local_ok": at % 8 > 0, "frontier_ok": at % 8 == 0}
        for at in range(200)
    ]
    means = [sum(row[name] for row in rows) for name in ("local_ok", "frontier_ok")]
    rows += [{"prompt": "Hi", "local_ok": True, "frontier_ok": False}] * max(0, means[1] - means[0])
    data = str(rows_file(rows))
    assert main(["router", "eval", "--data", data, "--artefact", "heuristic"]) == 0
    said = capsys.readouterr().out
    assert "no better than the local ones" in said and "more than either alone" in said
    assert main(["router", "eval", "--data", data, "--artefact", "heuristic", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["beats_length"] is False
    over = found["rankings"]["router"]["over_base"]
    assert set(over.values()) == {None}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (labelled(5), "too few rows: 5 have both local_ok and frontier_ok, at least 20 are needed"),
        (one_sided(), "0 have both local_ok and frontier_ok, at least 20 are needed; 57 have one"),
        ([row | {"local_ok": True} for row in labelled()], "local_ok is true in every row"),
        ([row | {"local_ok": 2} for row in labelled()], "line 1: local_ok must lie between"),
        ([], "has no rows"),
    ],
)
def test_eval_says_what_is_wrong_with_the_rows(
    rows: list[dict[str, Any]],
    says: str,
    rows_file: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = rows_file(rows)
    assert main(["router", "eval", "--data", str(data), "--artefact", "heuristic"]) == 2
    assert f"tollhouse: {data}" in (err := capsys.readouterr().err) and says in err


class Refitted(msgspec.Struct):
    name: str
    base: str
    rows: int
    seconds: float
    better: bool
    verdict: str
    metrics: dict[str, float | list[float]]
    merged: int = 3
    left_out: list[str] = []
    passed_over: int = 0


def test_refit_prints_the_gain_and_the_verdict(
    rows_file: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(
        rows: list[LabelRow], base: Path, out: Path, *, name: str, seed: int, where: str
    ) -> Refitted:
        require_enough(rows, 50, where)
        metrics: dict[str, float | list[float]] = {"apgr": 0.61, "apgr_ci95": [0.55, 0.67]}
        verdict = "No better than before on held-out rows."
        found = Refitted(name, base.name, len(rows), 1.5, False, verdict, metrics)
        return msgspec.structs.replace(found, left_out=left_out, passed_over=1234 * len(left_out))

    left_out: list[str] = []

    # What fitting finds is tested where it is fitted; here, what is said of it.
    monkeypatch.setitem(sys.modules, "routers.refit", SimpleNamespace(run=run))
    out = tmp_path / "ours-2"
    args = ["router", "refit", "--labels", str(rows_file(labelled())), "--out", str(out)]
    assert main([*args, "--artefact", shipped_artefacts()[0]]) == 0
    said = capsys.readouterr().out
    assert "ours-2" in said and shipped_artefacts()[0] in said and "60" in said
    assert "[0.5500, 0.6700]" in said and said.endswith("No better than before on held-out rows.\n")
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better"] is False
    assert "left out" not in said and "passed over" not in said
    left_out.append("shipped")
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "left out  shipped, which knew rows already; compared on 0 texts" in said
    assert ", 1234 passed over" in said
    rows_file(one_sided())
    assert main(args) == 2
    assert "0 have both local_ok and frontier_ok" in capsys.readouterr().err
    rows_file(labelled(5))
    assert main(args) == 2
    assert (
        "rows.jsonl: too few rows: 5 have both local_ok and frontier_ok, at least 50 are needed"
        in capsys.readouterr().err
    )


def test_eval_says_when_it_is_shown_the_rows_of_the_fit(
    rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    things = ["tax", "river", "sonnet", "lemma", "kidney", "treaty", "kernel", "orbit", "enzyme"]
    asks = "Explain the {}.", "How old is the {}?", "Draw up a plan for a {} in steps.", "{}, why?"
    rows = [
        {"prompt": ask.format(f"{one} {two}"), "local_ok": one < two, "frontier_ok": True}
        for ask in asks
        for one in things[:5]
        for two in things
    ]
    fitted, kept = rows[:135], rows[135:]
    out = tmp_path / "ours"
    args = ["router", "refit", "--artefact", "static-192", "--labels", str(rows_file(fitted))]
    assert main([*args, "--out", str(out)]) == 0
    capsys.readouterr()
    for data, share in ((fitted, 1.0), (kept, 0.0)):
        args = ["router", "eval", "--artefact", str(out), "--data", str(rows_file(data))]
        assert main(args) == 0
        said = capsys.readouterr().out
        assert ("fitted to 100% of these rows" in said) == bool(share)
        assert main([*args, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["seen"] == share


def test_refit_says_where_it_cannot_write(
    rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"prompt": f"{row['prompt']} {i}"} for i, row in enumerate(labelled())]
    out = tmp_path / "ours"
    (out / "heads.npz").mkdir(parents=True)
    args = ["router", "refit", "--artefact", "static-192", "--labels", str(rows_file(rows))]
    assert main([*args, "--out", str(out)]) == 1
    assert f"{out / 'heads.npz'}: Is a directory" in capsys.readouterr().err
    assert main([*args, "--out", str(out), "--seed", "-1"]) == 2
    assert "--seed: must be at least 0" in capsys.readouterr().err


def test_a_refit_that_cannot_be_written_whole_leaves_nothing(
    rows_file: Write, tmp_path: Path
) -> None:
    rows = [row | {"prompt": f"{row['prompt']} {i}"} for i, row in enumerate(labelled())]
    out = tmp_path / "ours"
    program = (
        "import resource, sys; from gateway.cli import main; "
        # As where the disk is full: the encoder is larger than files may be.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); sys.exit(main())"
    )
    args = ["router", "refit", "--artefact", "static-192", "--labels", str(rows_file(rows))]
    command = [sys.executable, "-c", program, *args, "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "File too large" in ended.stderr and "Traceback" not in ended.stderr
    assert not out.exists()


@pytest.mark.parametrize("command", ["refit", "refit of a card", "eval"])
def test_a_directory_appears_only_with_what_goes_into_it(
    command: str, rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = [row | {"ok": True} for row in labelled(5)], tmp_path / "new" / "ours"
    args = ["router", "refit", "--labels", str(rows_file(rows)), "--artefact", "static-192"]
    says = "too few rows: 5"
    if command == "refit of a card":
        args += ["--model", "home/m", "--tier", "local"]
    if command == "eval":
        nowhere = str(tmp_path / "gone")
        args = ["router", "eval", "--data", str(rows_file(labelled())), "--artefact", nowhere]
        says = "is no directory"
    assert main([*args, "--out", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "command",
    [
        "router score --input x --output",
        "router eval --data x --out",
        "router refit --labels x --out",
        "router train --data x --out",
        "router data fetch mmlu_pro --out",
        "router labels --out",
    ],
)
def test_an_empty_path_is_not_the_current_directory(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), ""]) == 2
    assert f"argument {command.split()[-1]}: must not be empty" in capsys.readouterr().err


@pytest.mark.parametrize("under", ["", "deep/er"])
def test_a_directory_that_cannot_be_made_is_told_before_the_work(
    under: str, rows_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("what was there before")
    out = str(file / under)
    data = str(rows_file(labelled()))
    assert main(["router", "eval", "--data", data, "--artefact", "nowhere", "--out", out]) == 2
    assert f"--out {out}: {file} is not a directory" in capsys.readouterr().err
    assert file.read_text() == "what was there before"


async def test_data_classes_are_those_of_the_patterns_and_the_model() -> None:
    class Detecting(FixedRouter):
        def detect(self, text: str) -> frozenset[str]:
            return frozenset(["phi"]) if "ward" in text else frozenset()

    texts = ["My card is 4111 1111 1111 1111.", "He is on the ward.", "Why?"]
    requests = [
        Request(msgspec.Raw(b"%d" % i), Query((Turn("user", text),)), text)
        for i, text in enumerate(texts)
    ]
    score = Score(p_local_ok=0.5, p_frontier_ok=0.6)
    lines = await score_lines(Detecting(score), requests, lambda done: None)
    found = [json.loads(line)["data_classes"] for line in lines]
    assert found == [["pii"], ["phi"], []]


async def test_open_router_knows_the_heuristic() -> None:
    router = open_router("heuristic")
    assert router.name == "heuristic"
    await router.aclose()
