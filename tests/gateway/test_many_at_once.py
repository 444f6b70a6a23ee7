"""More requests at once than the usual limits of files and connections allow."""

from __future__ import annotations

import resource

import pytest

from gateway import serving
from gateway.compose import upstream_limits
from gateway.config import parse_config


def test_one_upstream_may_serve_all_that_a_worker_serves() -> None:
    config = parse_config("[server]\nmax_in_flight = 3000")
    assert upstream_limits(config).connections > 3000


def test_as_many_files_as_may_be_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(256, before[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        serving.allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not permitted")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1 << 62))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    serving.allow_files()
    assert caplog.messages == ["at most 1024 files can be open at once: not permitted"]
