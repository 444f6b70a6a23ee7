"""Gateways of one test file, each with its own backends and its own money."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.auth import new_key
from tests.faults.scene import Backend, Key, Scene, configuration
from tests.support import Gateway, Upstream, stop_all

Stage = Callable[..., Scene]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Stage]:
    """Starts a gateway over the scripted upstream; it ends with the file."""
    started: list[Scene] = []
    upstream.reset()

    def start(
        backends: tuple[Backend, ...],
        keys: tuple[Key, ...],
        *,
        extra: str = "",
        upstreams: dict[str, Upstream] | None = None,
        **more: Any,
    ) -> Scene:
        text = configuration(upstream.url, backends, keys, extra)
        secrets = {key.name: new_key() for key in keys}
        folder = tmp_path_factory.mktemp("gateway")
        gateway = Gateway(folder, text, keys=secrets, **more)
        scene = Scene(gateway, upstreams or {"scripted": upstream}, backends)
        started.append(scene)
        return scene

    yield start
    for scene in started:
        scene.close()
    stop_all([scene.gateway for scene in started])
