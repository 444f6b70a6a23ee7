"""Requests of the admin API: the bodies are read as those of /v1 are."""

from __future__ import annotations

from typing import Any

from litestar import Request

from gateway.admin.problems import invalid
from gateway.bodies import BadBody, decode


class AdminRequest(Request[Any, Any, Any]):
    """Litestar's own decoder lets text that is not UTF-8, and deep nesting, end as a defect."""

    async def json(self) -> Any:
        """The value of the body, None for an empty one. Raises Refusal (400)."""
        try:
            return decode(await self.body() or b"null")
        except BadBody as exc:
            raise invalid(exc.field or "body", str(exc)) from exc
