"""What tokens cost. `prices.toml` holds the public list prices; configuration overrides them.

Prices are whole micro-USD per million tokens, which is the same as whole pico-USD per token, so
that no price that a provider publishes is rounded. A cost is whole nano-USD, rounded up once per
attempt.
"""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files

import msgspec

from backends.base import Usage

__all__ = [
    "FREE",
    "Price",
    "PriceError",
    "PriceRow",
    "PriceTable",
    "gpu_second_cost",
    "load_prices",
    "nano_usd",
    "parse_prices",
]

_MICRO = Decimal(1_000_000)
_NANO = Decimal(1_000_000_000)
_PICO_PER_NANO = 1000
_DEAREST = Decimal(1000)
_CHEAPEST = Decimal("0.001")
_CHEAPEST_CACHED = Decimal("0.0001")

Number = int | float | str | Decimal


class PriceError(ValueError):
    """A price that cannot be meant. The message names where it stands."""


class Price(msgspec.Struct, frozen=True):
    """Micro-USD per million tokens (pico-USD per token), all of them whole.

    `cached` is for input read from the provider's cache, `cache_write` for input written to it.
    A prompt of more than `long_over` tokens costs `long` in all its parts, when that is set.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    long_over: int = 0
    long: Price | None = None

    @classmethod
    def from_usd_per_million(
        cls,
        *,
        input: Number,
        output: Number = 0,
        cached: Number | None = None,
        cache_write: Number | None = None,
        where: str = "price",
    ) -> Price:
        """From the USD per million tokens that providers publish. A missing `cached` or
        `cache_write` costs as much as other input. Raises PriceError naming `where`."""
        usd_input = _usd(input, f"{where}.input", _CHEAPEST)
        usd_output = _usd(output, f"{where}.output", _CHEAPEST)
        usd_cached = _usd(_or(cached, usd_input), f"{where}.cached", _CHEAPEST_CACHED)
        usd_write = _usd(_or(cache_write, usd_input), f"{where}.cache_write", _CHEAPEST_CACHED)
        if 0 < usd_output < usd_input / 10:
            raise PriceError(
                f"{where}: output ({usd_output}) costs less than a tenth of input ({usd_input}): "
                "are they swapped?"
            )
        if usd_output > usd_input * 100 > 0:
            raise PriceError(f"{where}: output costs over 100 times as much as input")
        if usd_input == 0 < usd_output:
            raise PriceError(f"{where}: output has a price and input has none")
        if usd_cached > usd_input:
            raise PriceError(f"{where}: cached input costs more than other input")
        if usd_write > usd_input * 4:
            raise PriceError(f"{where}: cache_write costs over 4 times as much as input")
        return cls(
            input=_micro(usd_input, f"{where}.input"),
            output=_micro(usd_output, f"{where}.output"),
            cached=_micro(usd_cached, f"{where}.cached"),
            cache_write=_micro(usd_write, f"{where}.cache_write"),
        )

    @property
    def free(self) -> bool:
        return not (self.input or self.output or self.cached or self.cache_write)

    def cost(self, usage: Usage) -> int:
        """Nano-USD of one attempt, rounded up. Never negative."""
        band = self._band(usage.prompt)
        cached = max(usage.cached, 0)
        write = max(usage.cache_write, 0)
        fresh = max(usage.prompt - cached - write, 0)
        pico = (
            fresh * band.input
            + cached * band.cached
            + write * band.cache_write
            + max(usage.completion, 0) * band.output
        )
        return -(-pico // _PICO_PER_NANO)

    def worst_cost(self, prompt_tokens: int, output_tokens: int) -> int:
        """The most that so many tokens can cost, in nano-USD: every input token at its dearest."""
        band = self._band(prompt_tokens)
        dearest = max(band.input, band.cached, band.cache_write)
        pico = max(prompt_tokens, 0) * dearest + max(output_tokens, 0) * band.output
        return -(-pico // _PICO_PER_NANO)

    def _band(self, prompt_tokens: int) -> Price:
        if self.long is not None and prompt_tokens > self.long_over:
            return self.long
        return self


FREE = Price()


def _or(value: Number | None, default: Decimal) -> Number:
    return default if value is None else value


def _usd(value: Number, where: str, cheapest: Decimal) -> Decimal:
    try:
        usd = Decimal(str(value))
    except InvalidOperation as exc:
        raise PriceError(f"{where}: not a number") from exc
    if not usd.is_finite() or usd < 0:
        raise PriceError(f"{where}: must be a finite number and not negative")
    if usd > _DEAREST:
        raise PriceError(
            f"{where}: {usd} USD per million tokens is more than any model costs: "
            f"typed in another unit?"
        )
    if 0 < usd < cheapest:
        raise PriceError(
            f"{where}: {usd} USD per million tokens is less than any model costs: "
            "typed per token instead of per million?"
        )
    return usd


def _micro(usd: Decimal, where: str) -> int:
    micro = usd * _MICRO
    if micro != micro.to_integral_value():
        raise PriceError(f"{where}: finer than one micro-USD per million tokens")
    return int(micro)


def nano_usd(usd: Number, where: str = "usd") -> int:
    """An amount in USD as whole nano-USD, rounded up. Raises PriceError naming `where`."""
    try:
        amount = Decimal(str(usd)) * _NANO
    except InvalidOperation as exc:
        raise PriceError(f"{where}: not a number") from exc
    if not amount.is_finite() or amount < 0:
        raise PriceError(f"{where}: must be a finite number and not negative")
    return math.ceil(amount)


def gpu_second_cost(seconds: float, nano_usd_per_second: int) -> int:
    """Nano-USD of `seconds` of a machine of one's own, rounded up. Never negative."""
    if seconds <= 0 or nano_usd_per_second <= 0:
        return 0
    return math.ceil(Decimal(seconds) * nano_usd_per_second)


class PriceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of `prices.toml`: USD per million tokens. `model` is a pattern with `*`.

    `long_*` are the prices of prompts longer than `long_over` tokens.
    """

    provider: str
    model: str
    input: float
    as_of: datetime.date
    source: str
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None
    long_over: int | None = None
    long_input: float | None = None
    long_output: float | None = None
    long_cached: float | None = None
    long_cache_write: float | None = None

    def price(self, where: str) -> Price:
        price = Price.from_usd_per_million(
            input=self.input,
            output=self.output,
            cached=self.cached,
            cache_write=self.cache_write,
            where=where,
        )
        if self.long_over is None:
            return price
        if self.long_input is None or self.long_output is None or self.long_over < 1:
            raise PriceError(f"{where}: long_over needs long_input and long_output")
        long = Price.from_usd_per_million(
            input=self.long_input,
            output=self.long_output,
            cached=self.long_cached,
            cache_write=self.long_cache_write,
            where=f"{where}.long",
        )
        return msgspec.structs.replace(price, long_over=self.long_over, long=long)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    price: list[PriceRow]


class PriceTable:
    """Prices by provider and model. The first row that matches wins."""

    def __init__(self, rows: Iterable[tuple[PriceRow, Price]]) -> None:
        self._rows = tuple(rows)

    @property
    def rows(self) -> tuple[PriceRow, ...]:
        return tuple(row for row, _ in self._rows)

    def find(self, provider: str, model: str) -> Price | None:
        """None when the table does not know the model: never a guess."""
        found = self.find_row(provider, model)
        return found[1] if found is not None else None

    def find_row(self, provider: str, model: str) -> tuple[PriceRow, Price] | None:
        name = model.lower()
        for row, price in self._rows:
            if row.provider == provider and fnmatchcase(name, row.model):
                return row, price
        return None


def parse_prices(text: str, where: str = "prices.toml") -> PriceTable:
    """Raises PriceError naming the row for an unknown key, a wrong type or an impossible price."""
    try:
        parsed = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise PriceError(f"{where}: {exc}") from exc
    rows = []
    for row in parsed.price:
        if row.model != row.model.lower():
            raise PriceError(f"{where}: {row.provider}/{row.model}: patterns are lower case")
        rows.append((row, row.price(f"{where}: {row.provider}/{row.model}")))
    return PriceTable(rows)


@lru_cache(maxsize=1)
def load_prices() -> PriceTable:
    """The shipped list prices."""
    return parse_prices(files("backends").joinpath("prices.toml").read_text("utf-8"))
