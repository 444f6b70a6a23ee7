"""From parsed TOML or JSON to typed structs, with the exact path of whatever is wrong.

msgspec names the position of an error but not the key inside a table of tables; walking the type
here costs little and lets every message say `backends.openai.models.gpt-4o.input`.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from gateway.config.errors import ConfigError

T = TypeVar("T")


def convert(value: object, target: type[T], path: str = "") -> T:
    """Raises ConfigError naming the path of the first thing that does not fit."""
    return cast(T, _convert(value, target, path))


def _convert(value: object, target: Any, path: str) -> object:
    origin = typing.get_origin(target)
    if isinstance(target, type) and issubclass(target, msgspec.Struct):
        return _struct(value, target, path)
    if origin is dict:
        return _table(value, typing.get_args(target)[1], path)
    if origin is tuple:
        return _array(value, typing.get_args(target)[0], path)
    if origin in (typing.Union, types.UnionType):
        arms = [a for a in typing.get_args(target) if a is not type(None)]
        if value is None and type(None) in typing.get_args(target):
            return None
        if len(arms) == 1:
            return _convert(value, arms[0], path)
    try:
        return msgspec.convert(value, target, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(path, _plain(str(exc))) from exc


def _struct(value: object, target: type[msgspec.Struct], path: str) -> msgspec.Struct:
    if not isinstance(value, Mapping):
        raise ConfigError(path or "$", f"expected a table, got {_name(value)}")
    fields = {f.encode_name: f for f in msgspec.structs.fields(target)}
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(_join(path, str(key)), f"unknown key{hint}")
    given: dict[str, object] = {}
    for key, field in fields.items():
        if key in value:
            given[field.name] = _convert(value[key], field.type, _join(path, key))
        elif field.required:
            raise ConfigError(_join(path, key), "missing")
    return target(**given)


def _table(value: object, item: Any, path: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"expected a table, got {_name(value)}")
    return {str(k): _convert(v, item, _join(path, str(k))) for k, v in value.items()}


def _array(value: object, item: Any, path: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(path, f"expected an array, got {_name(value)}")
    return tuple(_convert(v, item, f"{path}[{i}]") for i, v in enumerate(value))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _plain(message: str) -> str:
    return message.split(" - at `", 1)[0][:1].lower() + message.split(" - at `", 1)[0][1:]


def _name(value: object) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
    }
    return names.get(type(value), "an array" if isinstance(value, list) else "a table")
