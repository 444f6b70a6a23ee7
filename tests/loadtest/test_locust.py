"""The locust scenario runs against a real gateway and finds nothing wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "loadtest" / "locust" / "locustfile.py"


@pytest.mark.timeout(120)
def test_a_short_run_has_no_failure(gateway, tmp_path):
    result = tmp_path / "result"
    command = [sys.executable, "-m", "locust", "-f", str(FILE), "--headless"]
    done = subprocess.run(
        [*command, "--json-file", str(result), "--csv", str(result)],
        env={
            **os.environ,
            "TOLLHOUSE_URL": gateway.url,
            "TOLLHOUSE_KEY": gateway.key,
            "TOLLHOUSE_SECONDS": "4",
            "TOLLHOUSE_USERS": "6",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    failures = (tmp_path / "result_failures.csv").read_text()
    assert done.returncode == 0, failures + done.stderr
    rows = {row["name"]: row for row in json.loads(result.with_suffix(".json").read_text())}
    assert {"easy", "stream", "repeat"} <= set(rows)
    assert sum(row["num_requests"] for row in rows.values()) > 10
    assert sum(row["num_failures"] for row in rows.values()) == 0
