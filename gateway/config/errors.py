"""One error for everything that can be wrong with a configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that cannot be used. `path` names the key, such as
    `backends.openai.api_key`; commands print it and exit with 2."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


def why_unreadable(exc: OSError | UnicodeDecodeError) -> str:
    """Of a text file, in words for whoever named it: without a number, and without the name."""
    if isinstance(exc, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return exc.strerror or str(exc)
