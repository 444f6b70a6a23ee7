"""What a worker process is given to start from. It imports next to nothing, so that the process
answers its supervisor at once, which takes a silent one for dead, and only then loads the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.app import Front


def application(document: bytes) -> Front:
    """As `gateway.app.create_app`."""
    from gateway.app import create_app

    return create_app(document)
