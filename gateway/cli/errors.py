"""What a command ends with when it cannot do what it was asked."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2


class CliError(Exception):
    """Printed as `tollhouse: MESSAGE`; `code` becomes the exit code (1: failed, 2: wrong use or
    configuration)."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
