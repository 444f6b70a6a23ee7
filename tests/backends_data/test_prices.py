from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Usage
from backends.prices import (
    FREE,
    Price,
    PriceError,
    gpu_second_cost,
    load_prices,
    nano_usd,
    parse_prices,
    tier_name,
)

MONEY = settings(max_examples=200, deadline=None, database=None)
MICRO = st.integers(0, 1_000_000_000)
TOKENS = st.integers(0, 2_000_000)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    fresh = draw(MICRO)
    return Price(
        input=fresh,
        output=draw(MICRO),
        cached=draw(st.integers(0, fresh)),
        cache_write=draw(st.integers(fresh, 2 * fresh)),
    )


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    fresh, read, write = draw(TOKENS), draw(TOKENS), draw(TOKENS)
    return Usage(fresh + read + write, draw(TOKENS), read, write)


def added(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt + other.prompt,
        one.completion + other.completion,
        one.cached + other.cached,
        one.cache_write + other.cache_write,
    )


@MONEY
@given(price=prices(), one=usages(), other=usages())
def test_rounding_is_up_and_at_most_once_per_attempt(
    price: Price, one: Usage, other: Usage
) -> None:
    together, apart = price.cost(added(one, other)), price.cost(one) + price.cost(other)
    assert together <= apart <= together + 1


@MONEY
@given(price=prices(), one=usages(), other=usages())
def test_more_tokens_never_cost_less(price: Price, one: Usage, other: Usage) -> None:
    assert price.cost(added(one, other)) >= price.cost(one) >= 0


@MONEY
@given(price=prices(), usage=usages(), spare=TOKENS)
def test_the_worst_cost_holds(price: Price, usage: Usage, spare: int) -> None:
    worst = price.worst_cost(usage.prompt + spare, usage.completion + spare)
    assert worst >= price.cost(usage)


@MONEY
@given(
    price=prices(),
    tiers=st.dictionaries(st.sampled_from(("flex", "priority", "scale")), prices(), max_size=2),
    usage=usages(),
    asked=st.sampled_from(("", "flex", "priority", "scale")),
)
def test_the_worst_cost_holds_whether_a_tier_is_given_or_not(
    price: Price, tiers: dict[str, Price], usage: Usage, asked: str
) -> None:
    tiered = msgspec.structs.replace(price, tiers=tiers)
    worst = tiered.worst_cost(usage.prompt, usage.completion, asked)
    assert worst >= max(tiered.cost(usage, asked), tiered.cost(usage))


def test_a_tier_has_no_price_of_its_own_for_long_prompts() -> None:
    long = Price(input=2_000_000, output=1_000_000)
    priority = Price(input=1_500_000, output=3_000_000)
    price = Price(1_000_000, 2_000_000, long_over=100, long=long, tiers={"priority": priority})
    assert price.cost(Usage(101, 0), "priority") == 202_000
    assert price.cost(Usage(101, 100), "priority") == 151_500 + 300_000
    assert price.cost(Usage(100, 0), "priority") == 150_000


def test_the_tiers_that_are_the_list_price() -> None:
    names = (None, 7, "", "auto", "default", "standard", "on_demand", "Priority", "p" * 100)
    assert [tier_name(name) for name in names] == [*[""] * 7, "priority", "p" * 32]


@MONEY
@given(
    price=prices(),
    numbers=st.lists(st.integers(-1000, 1000), min_size=4, max_size=4),
)
def test_no_usage_earns_money(price: Price, numbers: list[int]) -> None:
    assert price.cost(Usage(*numbers)) >= 0
    assert price.worst_cost(numbers[0], numbers[1]) >= 0


@MONEY
@given(usage=usages())
def test_long_prompts_cost_the_long_price(usage: Usage) -> None:
    long = Price(input=500_000, output=2_500_000, cached=50_000, cache_write=625_000)
    short = Price(100_000, 500_000, 10_000, 125_000, long_over=100_000, long=long)
    plain = Price(100_000, 500_000, 10_000, 125_000)
    want = long if usage.prompt > 100_000 else plain
    assert short.cost(usage) == want.cost(usage)
    assert short.worst_cost(usage.prompt, usage.completion) >= short.cost(usage)


def test_exact_units() -> None:
    price = Price.from_usd_per_million(input=0.15, output="0.60", cached=0.075)
    assert (price.input, price.output, price.cached, price.cache_write) == (
        150_000,
        600_000,
        75_000,
        150_000,
    )
    assert price.cost(Usage(prompt=1_000_000)) == nano_usd("0.15") == 150_000_000
    # A hundredth of a nano-USD is still one.
    assert Price(input=10).cost(Usage(prompt=1)) == 1
    assert FREE.free and FREE.cost(Usage(10**6, 10**6)) == 0


@pytest.mark.parametrize(
    ("given_prices", "words"),
    [
        ({"input": 1.5e-7, "output": 6e-7}, "per token instead of per million"),
        ({"input": 2500, "output": 10}, "more than any model costs"),
        ({"input": 5, "output": 0.2}, "swapped"),
        ({"input": 0, "output": 3}, "input has none"),
        ({"input": -1}, "not negative"),
        ({"input": "NaN"}, "finite"),
        ({"input": "dear"}, "not a number"),
        ({"input": 1, "output": 2, "cached": 3}, "cached input costs more"),
        ({"input": 1, "output": 2, "cache_write": 9}, "cache_write"),
        ({"input": "0.0123456789"}, "finer"),
    ],
)
def test_impossible_prices_name_their_place(given_prices: dict[str, Any], words: str) -> None:
    with pytest.raises(PriceError, match=words) as caught:
        Price.from_usd_per_million(**given_prices, where="backends.openai.prices.gpt")
    assert str(caught.value).startswith("backends.openai.prices.gpt")


def test_gpu_seconds() -> None:
    a_second = nano_usd("0.0007")
    assert gpu_second_cost(2.0, a_second) == 1_400_000
    assert gpu_second_cost(-1, a_second) == gpu_second_cost(5, 0) == 0


def test_the_shipped_table() -> None:
    table = load_prices()
    assert {row.provider for row in table.rows} == {
        "anthropic", "deepseek", "gemini", "groq", "mistral", "openai", "together",
    }  # fmt: skip
    assert all(row.source.startswith("https://") for row in table.rows)
    for row in table.rows:
        plain = row.model.replace("*", "").replace("[5678]", "5")
        found = table.find_row(row.provider, plain)
        assert found is not None and found[0] == row, f"{row.model} is hidden by another row"


@pytest.mark.parametrize(
    ("provider", "model", "usd"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "0.15"),
        ("openai", "gpt-4o", "2.5"),
        ("anthropic", "claude-sonnet-4-5-20250929", "3"),
        ("anthropic", "claude-opus-4-5", "5"),
    ],
)
def test_known_models(provider: str, model: str, usd: str) -> None:
    price = load_prices().find(provider, model)
    assert price is not None and price.cost(Usage(prompt=1_000_000)) == nano_usd(usd)


def test_unknown_models_have_no_price() -> None:
    table = load_prices()
    assert table.find("openai", "gpt-4o-audio-preview") is None
    assert table.find("nobody", "gpt-4o") is None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("inptu = 3", "unknown field `inptu`"),
        ("output = 'x'", "Expected `float`"),
        ("output = 0.01", "swapped"),
        ("long_over = 5", "long_over needs"),
    ],
)
def test_a_bad_row_is_named(extra: str, words: str) -> None:
    text = (
        "[[price]]\nprovider = 'p'\nmodel = 'm'\ninput = 1.0\nas_of = 2026-01-01\n"
        f"source = 'https://x.example'\n{extra}\n"
    )
    with pytest.raises(PriceError, match=words) as caught:
        parse_prices(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml")
