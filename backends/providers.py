"""Who runs an API: `providers.toml`, typed."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import resources
from typing import Literal

import msgspec

from backends.dialects.chat import Quirks

__all__ = ["Dialect", "Provider", "load_providers"]

Dialect = Literal["chat", "messages"]


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the table. `key_env` is None for engines that need no key, `local_port` None for
    APIs that are not run on one's own machine. `handed_on`: patterns of the names of models that a
    local engine does not run itself (Ollama's cloud models, https://docs.ollama.com/cloud).
    `thinks_first`: of those whose streams are silent while they reason, which may take minutes
    (https://platform.openai.com/docs/guides/reasoning)."""

    base_url: str
    dialect: Dialect = "chat"
    key_env: str | None = None
    local_port: int | None = None
    jurisdiction: str | None = None
    handed_on: tuple[str, ...] = ()
    thinks_first: tuple[str, ...] = ()
    quirks: Quirks = Quirks()

    def hands_on(self, model: str) -> bool:
        """Whether a local engine passes what this model is asked to servers elsewhere, as far as
        its name says."""
        return any(fnmatchcase(model, pattern) for pattern in self.handed_on)

    def is_silent_at_first(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.thinks_first)


def load_providers(text: str | None = None) -> dict[str, Provider]:
    """By name, from `text` (TOML) or the shipped table.

    Raises msgspec.ValidationError, naming the path, for an unknown key or a wrong type.
    """
    if text is None:
        text = resources.files("backends").joinpath("providers.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, Provider])
