"""What a translation left out, and what it refuses to leave out."""

from __future__ import annotations

from backends.errors import InvalidValue, Untranslatable


class Report:
    """Collects the names of dropped fields. With `drop_params`, a refusal becomes a drop."""

    __slots__ = ("_drop_params", "_names")

    def __init__(self, drop_params: bool) -> None:
        self._drop_params = drop_params
        self._names: dict[str, None] = {}

    @property
    def dropped(self) -> tuple[str, ...]:
        return tuple(self._names)

    def drop(self, name: str) -> None:
        self._names[name] = None

    def refuse(self, param: str, message: str) -> None:
        """The field has a meaning that the target cannot carry."""
        if not self._drop_params:
            raise Untranslatable(message, code="unsupported_parameter", param=param)
        self.drop(param)

    def invalid(self, param: str, message: str) -> None:
        """The field is wrong in itself: raises whatever `drop_params` says."""
        raise InvalidValue(message, code="invalid_value", param=param)
