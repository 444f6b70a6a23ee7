"""What tokens cost. `prices.toml` holds the public list prices; configuration overrides them.

Prices are whole micro-USD per million tokens, which is the same as whole pico-USD per token, so
that no price that a provider publishes is rounded. A cost is whole nano-USD, rounded up once per
attempt.
"""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Iterable, Mapping
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
    "TierPrice",
    "gpu_second_cost",
    "in_tiers",
    "load_prices",
    "nano_usd",
    "parse_prices",
    "tier_name",
]

_MICRO = Decimal(1_000_000)
_NANO = Decimal(1_000_000_000)
_PICO_PER_NANO = 1000
_DEAREST = Decimal(1000)
_CHEAPEST = Decimal("0.001")
_CHEAPEST_CACHED = Decimal("0.0001")

# What OpenAI, Anthropic and Groq call the tier of the list price.
_LIST_TIER = frozenset({"auto", "default", "standard", "standard_only", "on_demand"})
# Sold for waiting longer: where their price is not known, they cost no more than the list says.
_CHEAPER_TIERS = frozenset({"flex", "batch"})
_TIER_CHARS = 32

Number = int | float | str | Decimal


class PriceError(ValueError):
    """A price that cannot be meant. The message names where it stands."""


class Price(msgspec.Struct, frozen=True):
    """Micro-USD per million tokens (pico-USD per token), all of them whole.

    `cached` is for input read from the provider's cache, `cache_write` for input written to it.
    A prompt of more than `long_over` tokens costs `long` in all its parts, when that is set.
    `audio_input` and `audio_output` are for tokens of audio, `tiers` the prices of service tiers
    other than the usual one. What is not set there has no known price: it is counted as if it were
    nothing special, and `gaps` names it.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    long_over: int = 0
    long: Price | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    tiers: Mapping[str, Price] = {}

    @classmethod
    def from_usd_per_million(
        cls,
        *,
        input: Number,
        output: Number = 0,
        cached: Number | None = None,
        cache_write: Number | None = None,
        audio_input: Number | None = None,
        audio_output: Number | None = None,
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
            audio_input=_optional(audio_input, f"{where}.audio_input"),
            audio_output=_optional(audio_output, f"{where}.audio_output"),
        )

    @property
    def free(self) -> bool:
        return not (self.input or self.output or self.cached or self.cache_write)

    def cost(self, usage: Usage, tier: str = "") -> int:
        """Nano-USD of one attempt in a service tier, rounded up. Never negative. A tier without a
        price costs as much as the dearest that is known, a cheaper one as much as the list says."""
        if not tier:
            return self._cost(usage)
        return max(price._cost(usage) for price in self._served(tier, usage.prompt))

    def gaps(self, usage: Usage, tier: str = "") -> tuple[str, ...]:
        """What of a use has no known price, so that it may have cost more than `cost` says:
        `service_tier`, `audio`, `web_search`."""
        special = tier or usage.audio_prompt or usage.audio_completion or usage.searches
        if not special or self.free:
            return ()
        heard = usage.audio_prompt > 0 and self.audio_input is None
        spoken = usage.audio_completion > 0 and self.audio_output is None
        found = {
            "service_tier": bool(tier) and tier not in self.tiers and tier not in _CHEAPER_TIERS,
            "audio": heard or spoken,
            "web_search": usage.searches > 0,
        }
        return tuple(name for name, missing in found.items() if missing)

    def _served(self, tier: str, prompt_tokens: int) -> tuple[Price, ...]:
        """The prices of which the dearest holds. A tier has none of its own for long prompts."""
        known = self.tiers.get(tier)
        if known is None:
            return (self,) if tier in _CHEAPER_TIERS else (self, *self.tiers.values())
        return (known, self) if self._band(prompt_tokens) is not self else (known,)

    def _cost(self, usage: Usage) -> int:
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
        if usage.audio_prompt and band.audio_input is not None:
            heard = min(usage.audio_prompt, fresh)
            pico += heard * (band.audio_input - band.input)
        if usage.audio_completion and band.audio_output is not None:
            spoken = min(usage.audio_completion, max(usage.completion, 0))
            pico += spoken * (band.audio_output - band.output)
        return -(-max(pico, 0) // _PICO_PER_NANO)

    def worst_cost(
        self, prompt_tokens: int, output_tokens: int, tier: str = "", *, audio: bool = False
    ) -> int:
        """The most that so many tokens can cost, in nano-USD: every token at its dearest, also
        where a tier that was asked for is not given. `audio`: some of them may be audio."""
        if not tier:
            return self._worst(prompt_tokens, output_tokens, audio=audio)
        prices = (self, *self._served(tier, prompt_tokens))
        return max(price._worst(prompt_tokens, output_tokens, audio=audio) for price in prices)

    def _worst(self, prompt_tokens: int, output_tokens: int, *, audio: bool) -> int:
        band = self._band(prompt_tokens)
        dearest, output = max(band.input, band.cached, band.cache_write), band.output
        if audio:
            dearest = max(dearest, band.audio_input or 0)
            output = max(output, band.audio_output or 0)
        pico = max(prompt_tokens, 0) * dearest + max(output_tokens, 0) * output
        return -(-pico // _PICO_PER_NANO)

    def _band(self, prompt_tokens: int) -> Price:
        if self.long is not None and prompt_tokens > self.long_over:
            return self.long
        return self


FREE = Price()


def tier_name(said: object) -> str:
    """A service tier as prices are named by it: empty for the one of the list price, and where
    nothing was said."""
    if not isinstance(said, str) or said in _LIST_TIER:
        return ""
    return said[:_TIER_CHARS].lower()


def in_tiers(price: Price, tiers: Mapping[str, TierPrice], where: str) -> Price:
    """The price with those of its service tiers. Raises PriceError naming `where`."""
    for name in tiers:
        if tier_name(name) != name or not name:
            raise PriceError(f"{where}.tiers.{name}: not the name of a tier with its own price")
    made = {name: tier.price(f"{where}.tiers.{name}") for name, tier in tiers.items()}
    return msgspec.structs.replace(price, tiers=made) if made else price


def _optional(value: Number | None, where: str) -> int | None:
    return None if value is None else _micro(_usd(value, where, _CHEAPEST), where)


def _dearer(audio: float | None, usual: float) -> float | None:
    return None if audio is None else max(audio, usual)


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


class TierPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price of one service tier, in USD per million tokens."""

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None

    def price(self, where: str) -> Price:
        return Price.from_usd_per_million(**msgspec.structs.asdict(self), where=where)


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
    audio_input: float | None = None
    audio_output: float | None = None
    tiers: dict[str, TierPrice] = {}

    def price(self, where: str) -> Price:
        price = Price.from_usd_per_million(
            input=self.input,
            output=self.output,
            cached=self.cached,
            cache_write=self.cache_write,
            audio_input=self.audio_input,
            audio_output=self.audio_output,
            where=where,
        )
        price = in_tiers(price, self.tiers, where)
        if self.long_over is None:
            return price
        if self.long_input is None or self.long_output is None or self.long_over < 1:
            raise PriceError(f"{where}: long_over needs long_input and long_output")
        long = Price.from_usd_per_million(
            input=self.long_input,
            output=self.long_output,
            cached=self.long_cached,
            cache_write=self.long_cache_write,
            audio_input=_dearer(self.audio_input, self.long_input),
            audio_output=_dearer(self.audio_output, self.long_output),
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
