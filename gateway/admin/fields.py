"""Parameters that several handlers take, and their checks."""

from __future__ import annotations

import re
from typing import Annotated

from litestar.params import FromPath, HeaderParameter, QueryParameter

from gateway.admin.problems import Refusal, invalid
from gateway.auth import is_public_id
from gateway.ledger import is_org

_PRINTABLE = r"^[\x20-\x7e]*$"
Limit = Annotated[int, QueryParameter(ge=1, le=500, description="How many at most.")]
Cursor = Annotated[
    str | None,
    QueryParameter(
        max_length=200,
        # No cursor has anything else in it, and PostgreSQL refuses a NUL in text.
        pattern=_PRINTABLE,
        description="`next_cursor` of the page before.",
    ),
]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", required=False)]
IfNoneMatch = Annotated[str | None, HeaderParameter(name="If-None-Match", required=False)]
Name = FromPath[str]
Text = Annotated[str | None, QueryParameter(max_length=256, pattern=_PRINTABLE)]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> str:
    """Raises Refusal."""
    if _NAME.fullmatch(name) is None:
        raise invalid("name", "1 to 64 of letters, digits, '_', '-' and '.'")
    return name


def check_text(field: str, text: str) -> str:
    """Raises Refusal for what no record can hold."""
    if len(text) > 256 or not (text.isascii() and text.isprintable()):
        raise invalid(field, "at most 256 printable ASCII characters")
    return text


def check_org(org: str) -> str:
    """Raises Refusal."""
    if not is_org(org):
        raise invalid("org", "1 to 128 of letters, digits, '_', '.', '@' and '-'")
    return org


def check_key_id(key_id: str) -> str:
    """Raises Refusal."""
    if not is_public_id(key_id):
        raise invalid("id", "the public id of a key: 12 of a-z and 0-9")
    return key_id


def split_action(segment: str, action: str) -> str:
    """`thing:action` to `thing`. Raises Refusal (404) for another action: routes of the framework
    cannot match a colon inside a parameter."""
    target, _, found = segment.rpartition(":")
    if found != action or not target:
        raise Refusal(404, "There is nothing at this address.")
    return target
