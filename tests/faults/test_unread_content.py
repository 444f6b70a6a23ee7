"""What a detector can read it reads, and what none can read counts as unread, whatever its form:
neither goes to a frontier that its label keeps it from."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.faults.scene import Backend, Key, Scene, chat

LOCAL = Backend("near", "tokens=3,chunk=1ms", tier="local", jurisdiction="de")
FRONTIER = Backend("far", "tokens=4,chunk=1ms", tier="frontier", jurisdiction="us")
KEY = Key("main", (), None)
POLICIES = """
[policies.default]
route = "strong"
detect = ["pii", "phi"]
detect_by = "patterns"
labels.pii.tiers = ["local"]
labels.phi.tiers = ["local"]
[policies.sealed]
route = "strong"
detect = []
opaque_label = "unread"
labels.unread.tiers = ["local"]
labels.pii.tiers = ["local"]
labels.phi.tiers = ["local"]
"""
CSV = "customer,iban,email\nWeber,DE89370400440532013000,max.weber@example.com\nKern,none,none\n"
BASE64 = base64.b64encode(bytes(range(256))).decode()
VIDEO = f"data:video/mp4;base64,{BASE64}"


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    return stage((LOCAL, FRONTIER), (KEY,), extra=POLICIES)


def parts(*found: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": "What is this?"}, *found]
    return {"model": "auto", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    "body",
    [
        chat(f"data:{CSV}"),
        chat("data:\n" + CSV.replace(" ", "_")),
        chat("data:text/plain;base64," + CSV),
        parts({"type": "video_url", "video_url": {"url": "data:text/csv," + CSV}}),
        parts({"type": "file", "file": {"file_data": "data:text/csv;base64," + CSV}}),
        parts({"type": "file", "file": {"filename": "a.csv", "file_data": CSV}}),
        chat("Hello", metadata={"data": CSV}),
    ],
    ids=["content", "line", "no-base64", "url", "file-url", "file", "metadata"],
)
def test_text_that_looks_like_binary_data_is_read(scene: Scene, body: dict[str, Any]) -> None:
    answer = scene.ask("main", body)
    assert answer.headers["x-tollhouse-residency"] == "pii"
    assert answer.headers["x-tollhouse-backend"] == "near"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("pii", "x\nDE89370400440532013000\ny"),
        ("pii", "name\tX\nTel: 030 1234567\nok"),
        ("phi", "Patient:\nDOB 01/02/1970\nfever\nasthma"),
        ("phi", "line\nMRN 12345678"),
        ("pii", '{"birth_date": "1961-03-12"}'),
        ("pii", "Handynummer: 0171 2345678, Fødselsdato: 12.03.1961"),
        ("pii", "Mail an max&#64;klinik.de"),
        ("pii", "https://example.org/t?email=max%40web.de"),
        ("phi", "Patientennummer: 48213377"),
        ("phi", '{"patient_id": "48213377", "finding": "none"}'),
    ],
)
def test_arguments_of_tools_are_read_as_what_they_stand_for(
    scene: Scene, label: str, text: str
) -> None:
    function = {"name": "f", "arguments": json.dumps({"note": text})}
    call = {"id": "call_1", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    plain = scene.ask("main", chat(text)).headers["x-tollhouse-residency"]
    assert label in plain
    for body in (
        {"model": "auto", "messages": messages},
        chat(f"What is in it?\n{json.dumps(function)}"),
    ):
        answer = scene.ask("main", body)
        assert answer.headers["x-tollhouse-residency"] == plain
        assert answer.headers["x-tollhouse-backend"] == "near"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": VIDEO}},
        {"type": "document", "source": {"type": "base64", "data": BASE64}},
        {"type": "input_video", "input_video": {"data": BASE64}},
        {"type": "of the future", "ref": "a1"},
        {"image_url": {"url": "https://example.org/a.png"}},
        {"type": ["image_url"], "ref": "a1"},
    ],
    ids=lambda part: str(part.get("type")),
)
def test_content_that_no_detector_reads_gets_its_label(scene: Scene, part: dict[str, Any]) -> None:
    answer = scene.ask("main", parts(part), x_tollhouse_policy="sealed")
    assert answer.headers["x-tollhouse-residency"] == "unread"
    assert answer.headers["x-tollhouse-backend"] == "near"


def test_text_alone_is_not_unread(scene: Scene) -> None:
    answer = scene.ask("main", parts(), x_tollhouse_policy="sealed")
    assert answer.headers["x-tollhouse-backend"] == "far"
