"""The `tollhouse` command."""

from __future__ import annotations

from gateway.cli.parser import main

__all__ = ["main"]
