"""The data sources, on small originals in their own formats."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli import main
from routers.train.originals import CONVERTERS, LLMROUTER_MODELS
from routers.train.sources import (
    Fetched,
    Source,
    SourceError,
    copies_in,
    fetch,
    from_github,
    from_hub,
    sources,
)

Put = Callable[..., Path]
# What routers are measured on, as it is called in the repositories of the table.
MEASURED = re.compile(
    r"mmlu/responses|gsm8k/test|mt.bench|zero.?eval|bfcl|routerarena|xquad|aci.?bench"
    r"|banking_data/test|synth_dataset|TestSet",
    re.IGNORECASE,
)
PRO = {
    "question_id": 86,
    "question": "Q?",
    "options": ["one", "two", "N/A"],
    "answer": "B",
    "category": "business",
    "src": "stemez-Business",
    "pred": "B",
    "model_outputs": "so the answer is (B)",
}
ROUTED = {
    "task_name": "gsm8k",
    "query": "How many?",
    "ground_truth": "2",
    "model_name": LLMROUTER_MODELS[0],
    "performance": 1.0,
    "response": "2",
}
PII = {
    "full_text": "I am Ann.",
    "masked": "I am {{first_name}}.",
    "template_id": 3,
    "spans": [
        {"entity_type": "PERSON", "entity_value": "Ann", "start_position": 5, "end_position": 8}
    ],
    "metadata": None,
}
DOMAINS = {"travel": ["translate"], "small_talk": ["greeting"]}
CLINC = {
    "oos_val": [["a show on broadway", "oos"]],
    "val": [["say yes in french", "translate"]],
    "train": [["hello", "greeting"], ["say no in french", "translate"]],
    "oos_test": [["kept for measuring", "oos"]],
    "test": [["kept for measuring", "greeting"]],
    "oos_train": [["why", "oos"]],
}


def unpinned() -> dict[str, Source]:
    """The table for originals that are not the real ones."""
    return {k: msgspec.structs.replace(v, pins={}) for k, v in sources().items()}


def read(path: str) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def converted(name: str, copies: Path, out: Path) -> list[dict[str, Any]]:
    return read(fetch(name, out, copies_in(copies), unpinned()).path)


def refused(name: str, copies: Path, out: Path) -> str:
    with pytest.raises(SourceError) as caught:
        fetch(name, out, copies_in(copies), unpinned())
    assert list(out.glob("*")) == []
    return str(caught.value)


@pytest.mark.parametrize("source", sources().values(), ids=lambda source: source.name)
def test_the_table_holds_together(source: Source) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo)
    assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
    assert source.rows > 0
    assert source.licence
    names = [name for name, _ in source.originals()]
    assert len(names) == len(set(names))
    if not names:
        assert source.missing
        return
    assert re.fullmatch(r"[0-9a-f]{40}", source.revision)
    assert source.convert in CONVERTERS
    assert len(source.keep) in (0, 1, len(names))
    assert not [name for name in names if MEASURED.search(name)]
    assert set(source.pins) <= set(names)


def test_the_table_speaks_of_the_data_that_is_trained_on(routing_data: Path) -> None:
    for source in sources().values():
        content = gzip.decompress((routing_data / f"{source.name}.jsonl.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == source.sha256, source.name
        assert content.count(b"\n") == source.rows, source.name


def test_kept_rows_are_written_as_ranges() -> None:
    source = msgspec.structs.replace(sources()["gsm8k_train"], keep=["0-2 5", "7"])
    assert source.kept() == [{0, 1, 2, 5}, {7}]


def test_csv(put: Put, copies: Path, tmp_path: Path) -> None:
    put("banking77", [{"text": 'Where is my "card",\nplease?', "category": "card_arrival"}])
    assert converted("banking77", copies, tmp_path / "out") == [
        {"split": "train", "text": 'Where is my "card",\nplease?', "intent": "card_arrival"}
    ]


def test_csv_keeps_the_line_ends_of_dialogues(put: Put, copies: Path, tmp_path: Path) -> None:
    said = "Doctor: Well?\r\nPatient: Fine."
    row = {"ID": "0", "section_header": "CC", "section_text": "Fine.", "dialogue": said}
    put("clinical_dialogue", [row])
    assert converted("clinical_dialogue", copies, tmp_path / "out") == [
        {"split": "train", "section": "CC", "note": "Fine.", "dialogue": said}
    ]


def test_json_lines_with_separators_inside(put: Put, copies: Path, tmp_path: Path) -> None:
    row = {"uid": "u", "category": "hard_prompt", "subcategory": "math", "prompt": "a\u2028b\x85c"}
    put("arena_hard_v2.0", [{**row, "more": 1}])
    assert converted("arena_hard_v2.0", copies, tmp_path / "out") == [row]


def test_numbered_rows_without_the_ones_left_out(put: Put, copies: Path, tmp_path: Path) -> None:
    put("gsm8k_train", [{"question": f"q{n}", "answer": "#### 1"} for n in range(1317)])
    found = converted("gsm8k_train", copies, tmp_path / "out")
    assert [row["id"] for row in found[1312:]] == [
        f"gsm8k-train/{number}" for number in (1312, 1313, 1315, 1316)
    ]


def test_scores_from_one_archive_per_model(put: Put, copies: Path, tmp_path: Path) -> None:
    models = [part for _, part in sources()["mmlu_pro"].originals()]
    for number in range(len(models)):
        put("mmlu_pro", [{**PRO, "pred": "B" if number % 2 else "A"}], number)
    second = {**PRO, "question_id": 87, "pred": None}
    repeated = {**PRO, "question_id": 88, "src": "ori_mmlu-business_ethics"}
    left_out = {**PRO, "question_id": 123}
    put("mmlu_pro", [second, left_out, repeated, PRO], 3)
    first, other = converted("mmlu_pro", copies, tmp_path / "out")
    assert first["id"] == "mmlupro/86"
    assert first["options"] == ["one", "two"]
    assert first["scores"] == {model: number % 2 for number, model in enumerate(models)}
    assert first["null"] == []
    assert (other["id"], other["scores"], other["null"]) == (
        "mmlupro/87",
        {models[3]: 0},
        [models[3]],
    )


def test_scores_from_one_row_per_model(put: Put, copies: Path, tmp_path: Path) -> None:
    put(
        "llmrouter",
        [
            ROUTED,
            {**ROUTED, "query": "Which?", "performance": 1},
            {**ROUTED, "model_name": LLMROUTER_MODELS[1], "performance": 2 / 3},
            {**ROUTED, "model_name": "another-model", "performance": 0.0},
        ],
    )
    put("llmrouter", [{**ROUTED, "query": f"Q{n}"} for n in range(101)], 1)
    found = converted("llmrouter", copies, tmp_path / "out")
    assert found[0] == {
        "id": "llmrouter/train/0",
        "question": "How many?",
        "task": "gsm8k",
        "scores": {LLMROUTER_MODELS[0]: 1.0, LLMROUTER_MODELS[1]: 0.6666666667},
    }
    assert [row["id"] for row in found[1:3]] == ["llmrouter/train/1", "llmrouter/test/0"]
    assert found[-1]["id"] == "llmrouter/test/100"
    assert len(found) == 2 + 50 + 1, "rows 50 to 99 of the test part are left out"


def test_only_training_and_validation_splits(put: Put, copies: Path, tmp_path: Path) -> None:
    put("clinc150", CLINC)
    put("clinc150", DOMAINS, 1)
    found = converted("clinc150", copies, tmp_path / "out")
    assert [(row["split"], row["domain"]) for row in found] == [
        ("oos_val", "oos"),
        ("val", "travel"),
        ("train", "small_talk"),
        ("train", "travel"),
        ("oos_train", "oos"),
    ]
    assert "kept for measuring" not in {row["text"] for row in found}


def test_sentences_are_drawn_the_same_way_everywhere(
    put: Put, copies: Path, tmp_path: Path
) -> None:
    total = len(list(sources()["languages"].originals()))
    lines = [f"sentence {n}" for n in range(300)]
    for number in range(total):
        put("languages", "\n".join([*lines, "", lines[0]]).encode(), number)
    first = converted("languages", copies, tmp_path / "out")
    assert len(first) == 200 * total
    drawn = [row["text"] for row in first if row["lang"] == "af"]
    for number in range(total):
        put("languages", ("\n".join(reversed(lines)) + "\n").encode(), number)
    again = converted("languages", copies, tmp_path / "again")
    assert [row["text"] for row in again if row["lang"] == "af"] == drawn[::-1]


def test_spans_of_templates_that_are_kept(put: Put, copies: Path, tmp_path: Path) -> None:
    put("pii_templates", [PII, {**PII, "spans": []}, {**PII, "template_id": 2}])
    assert converted("pii_templates", copies, tmp_path / "out") == [
        {
            "text": "I am Ann.",
            "template": "I am {{first_name}}.",
            "template_id": 3,
            "spans": [{"type": "PERSON", "start": 5, "end": 8}],
        }
    ]


def test_the_same_bytes_every_time(put: Put, copies: Path, tmp_path: Path) -> None:
    put("banking77", [{"text": "Hé?", "category": "card_arrival"}])
    once = fetch("banking77", tmp_path / "a", copies_in(copies))
    twice = fetch("banking77", tmp_path / "b" / "c", copies_in(copies))
    content = Path(once.path).read_bytes()
    assert Path(twice.path).read_bytes() == content
    assert content[3] == 0, "no file name in the head of the gzip file"
    assert content[4:8] == bytes(4), "no time either"
    assert once == Fetched("banking77", str(tmp_path / "a" / "banking77.jsonl.gz"), 1, 10003, False)


def _rows(routing_data: Path, name: str) -> list[dict[str, Any]]:
    return read(str(routing_data / f"{name}.jsonl.gz"))


def _renamed(row: Mapping[str, Any], source: Source) -> dict[str, Any]:
    return {theirs: row[ours] for ours, theirs in source.fields.items() if ours in row}


@pytest.mark.parametrize(
    "name", ["banking77", "clinical_dialogue", "arena_hard_v0.1", "arena_hard_v2.0"]
)
def test_the_real_rows_come_back(
    name: str, routing_data: Path, put: Put, copies: Path, tmp_path: Path
) -> None:
    source = sources()[name]
    put(name, [_renamed(row, source) for row in _rows(routing_data, name)])
    found = fetch(name, tmp_path / "out", copies_in(copies))
    assert found.same
    assert found.rows == found.expected


def test_the_real_examinations_come_back(
    routing_data: Path, put: Put, copies: Path, tmp_path: Path
) -> None:
    source = sources()["mmlu_pro"]
    rows = _rows(routing_data, "mmlu_pro")
    for number, (_, model) in enumerate(source.originals()):
        answered = []
        for row in rows:
            if model in row["scores"]:
                guess = row["answer"] if row["scores"][model] else "X"
                given = {**row, "scores": None if model in row["null"] else guess}
                given["id"] = int(row["id"].split("/")[1])
                answered.append(_renamed(given, source))
        put("mmlu_pro", answered, number)
    assert fetch("mmlu_pro", tmp_path / "out", copies_in(copies)).same


def test_the_real_intents_and_templates_come_back(
    routing_data: Path, put: Put, copies: Path, tmp_path: Path
) -> None:
    splits: dict[str, list[list[str]]] = {}
    domains: dict[str, dict[str, None]] = {}
    for row in _rows(routing_data, "clinc150"):
        splits.setdefault(row["split"], []).append([row["text"], row["intent"]])
        domains.setdefault(row["domain"], {})[row["intent"]] = None
    put("clinc150", splits)
    put("clinc150", {domain: list(intents) for domain, intents in domains.items()}, 1)
    assert fetch("clinc150", tmp_path / "out", copies_in(copies), unpinned()).same
    spans = {"type": "entity_type", "start": "start_position", "end": "end_position"}
    source, rows = sources()["pii_templates"], []
    for row in _rows(routing_data, "pii_templates"):
        found = [{theirs: span[ours] for ours, theirs in spans.items()} for span in row["spans"]]
        rows.append(_renamed({**row, "spans": found}, source))
    put("pii_templates", rows)
    assert fetch("pii_templates", tmp_path / "out", copies_in(copies)).same


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("banking77", b"text,category\na,b\nonly one\n", "train.csv, row 2: must have 2 fields"),
        ("banking77", b"text,category\na,b,c\n", "train.csv, row 1: must have 2 fields"),
        ("banking77", b"text,intent\na,b\n", "train.csv, row 1: the field category is missing"),
        ("banking77", b"text,category\n\xff,b\n", "train.csv: 'utf-8' codec can't decode"),
        ("banking77", b'text,category\n"a"b,c\n', "train.csv: ',' expected after '\"'"),
        ("banking77", b"text,category\n", "the originals have none of the rows"),
        ("gsm8k_train", b'{"question": "q", "answer": "a"}\n{"question"\n', "train.jsonl, row 2: "),
        ("gsm8k_train", b'["question"]\n', "train.jsonl, row 1: must be an object"),
        ("gsm8k_train", b'{"question": "q", "answer": 3}\n', "field answer must be text, not 3"),
        ("gsm8k_train", b"version https://git-lfs.github.com/spec/v1\n", "train.jsonl, row 1: "),
        ("pii_templates", b'{"full_text": "x"}', "Expected `array`, got `object`"),
        ("pii_templates", [{**PII, "template_id": True}], "template_id must be a whole number"),
        ("pii_templates", [{**PII, "full_text": "I am"}], "row 1: the span 5 to 8 does not lie"),
        ("pii_templates", [PII, {**PII, "spans": ["Ann"]}], "row 2: a span must be an object"),
        ("pii_templates", [{**PII, "full_text": "I am Ann \ud800"}], "pii_templates: "),
        ("mmlu_pro", b"not a zip", "Coder-V2_5shots.zip: File is not a zip file"),
        ("mmlu_pro", [{**PRO, "options": [1]}], "row 1: the field options must be a list of texts"),
        ("mmlu_pro", [{**PRO, "question_id": "86"}], "field question_id must be a whole number"),
        ("llmrouter", [{**ROUTED, "performance": 1.5}], "row 1: the field performance must lie"),
        ("llmrouter", [{**ROUTED, "performance": None}], "performance must be a number, not None"),
        ("clinc150", {"train": []}, "data/data_full.json: the split val is missing"),
        ("clinc150", {**CLINC, "val": [["hi"]]}, "row 1: must be a list of text and intent"),
        ("clinc150", {**CLINC, "val": [["hi", "x"]]}, "row 1: the intent 'x' has no domain"),
        ("clinc150", [], "data/data_full.json: Expected `object`, got `array`"),
    ],
)
def test_what_is_wrong_with_an_original_is_told(
    name: str, content: Any, said: str, put: Put, copies: Path, tmp_path: Path
) -> None:
    for number in range(1, len(list(sources()[name].originals()))):
        put(name, DOMAINS if name == "clinc150" else [], number)
    put(name, content)
    message = refused(name, copies, tmp_path / "out")
    assert message.startswith(f"{name}: ")
    assert said in message


def test_an_archive_must_hold_one_file(put: Put, copies: Path, tmp_path: Path) -> None:
    for number in range(len(list(sources()["mmlu_pro"].originals()))):
        put("mmlu_pro", [PRO], number)
    path = put("mmlu_pro", [PRO])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("second.json", "[]")
    assert "must hold one .json file, not 2" in refused("mmlu_pro", copies, tmp_path / "out")


def test_what_cannot_be_had(put: Put, copies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no such source" in refused("mmlu", copies, out)
    assert "MMLU's test split" in refused("mmlu_gold", copies, out)
    missing = refused("banking77", copies, out)
    assert "banking_data/train.csv: [Errno 2]" in missing


def test_an_original_that_is_pinned_must_be_that_one(
    put: Put, copies: Path, tmp_path: Path
) -> None:
    put("clinc150", CLINC)
    with pytest.raises(SourceError, match=r"data/data_full\.json: its sha256 is not"):
        fetch("clinc150", tmp_path, copies_in(copies))


@pytest.fixture
def origin() -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """A server on this machine: its address, what it holds by path, and the paths asked for."""
    held: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            asked.append(self.path)
            content = held.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            if content is not None:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "c" * 40)
            self.end_headers()
            if body and content:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", held, asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_from_github(origin: tuple[str, dict[str, bytes], list[str]], tmp_path: Path) -> None:
    url, held, asked = origin
    source = sources()["banking77"]
    held[f"/{source.repo}/{source.revision}/{source.files[0]}"] = b"text,category\nHello?,greet\n"

    def download(source: Source, file: str, folder: Path) -> Path:
        return from_github(source, file, folder, base=url)

    found = fetch("banking77", tmp_path, download)
    assert read(found.path) == [{"split": "train", "text": "Hello?", "intent": "greet"}]
    assert asked == [f"/{source.repo}/{source.revision}/banking_data/train.csv"]
    with pytest.raises(SourceError, match=r"github.com/clinc/oos-eval.*HTTP Error 404"):
        fetch("clinc150", tmp_path, download)


def test_from_the_hub(
    origin: tuple[str, dict[str, bytes], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    url, held, _ = origin
    source = sources()["arena_hard_v0.1"]
    row = {"uid": "u", "category": "arena-hard-v0.1", "cluster": "c", "prompt": "Hello?"}
    held[f"/datasets/{source.repo}/resolve/{source.revision}/{source.files[0]}"] = json.dumps(
        row
    ).encode()

    def download(source: Source, file: str, folder: Path) -> Path:
        return from_hub(source, file, folder, endpoint=url)

    found = fetch("arena_hard_v0.1", tmp_path / "out", download)
    assert read(found.path) == [row]
    with pytest.raises(SourceError, match=r"arena_hard_v2\.0: huggingface\.co/datasets/lmarena-ai"):
        fetch("arena_hard_v2.0", tmp_path / "out", download)


def test_the_commands(
    put: Put, copies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["router", "data", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in sources())
    assert "CC-BY-4.0" in printed
    assert main(["router", "data", "list", "--json"]) == 0
    assert [source["name"] for source in json.loads(capsys.readouterr().out)] == list(sources())

    put("banking77", [{"text": "Hello?", "category": "greeting"}])
    local = ["--out", str(tmp_path / "out"), "--copies", str(copies)]
    assert main(["router", "data", "fetch", "banking77", *local]) == 0
    assert "1 rows of 10,003, other content" in capsys.readouterr().out
    assert main(["router", "data", "fetch", "banking77", "--json", *local]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["rows"] == 1
    assert Path(found["path"]).is_file()
    assert main(["router", "data", "fetch", "gsm8k_train", *local]) == 1
    assert "tollhouse: gsm8k_train: github.com/lm-sys/RouteLLM: " in capsys.readouterr().err

    (tmp_path / "file").write_text("")
    blocked = ["--out", str(tmp_path / "file"), "--copies", str(copies)]
    assert main(["router", "data", "fetch", "banking77", *blocked]) == 2
    assert "--out" in capsys.readouterr().err
