"""How far a short prefix found by search moves decisions, on our own model.

    python -m routers.evals.attack [--artefact NAME_OR_DIR]... [--queries N] [--adaptive]
                                   [--json FILE]

Whoever pays with somebody else's budget wants every request at the strong tier. A confounder
gadget (Shafran et al. 2025, arXiv 2501.01818) is a meaningless prefix, found once by hill
climbing on the router's score, that is put before any prompt. Here it has at most ten tokens of
the artefact's own vocabulary, and the search sees scores only. It is found on some prompts and
measured on others, in both directions, beside random prefixes of the same length, and on the
other artefacts (transfer).

The threshold stays where it sent 30 or 50 % of the unchanged prompts to the frontier. `defended`
is what is left when a router also scores the text without its first `DROPPED` characters and,
where the two disagree by more than `DISAGREE`, believes the lower score.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean

import msgspec

from routers.artefacts import DEFAULT, find_artefact, open_router
from routers.base import Router
from routers.evals.patterns import data_directory
from routers.evals.robustness import no_data, shared_prompts
from routers.evals.scoring import score_all
from routers.onnx.manifest import ArtefactError
from routers.types import Query, Turn

SEED = 20_250_701
UP, DOWN, ADAPTIVE = "up", "down", "adaptive"
TOKENS = 10
QUERIES = 4000
CANDIDATES = 12
BATCH = 8
CONTROLS = 3
SHARES = (0.3, 0.5)
SEARCH_EACH, HELD_EACH = 20, 50
DROPPED = 60
DISAGREE = 0.1
_VOCABULARY = msgspec.json.Decoder()

# Gains of texts, in order.
Gains = Callable[[Sequence[str]], Awaitable[list[float]]]


class Budget(msgspec.Struct, frozen=True):
    """`queries`: how many texts the search may ask to have scored. A step tries `candidates`
    tokens at one place of the prefix, each on the same `batch` prompts; `seed` draws both."""

    queries: int = QUERIES
    candidates: int = CANDIDATES
    batch: int = BATCH
    tokens: int = TOKENS
    seed: int = SEED


class Effect(msgspec.Struct, frozen=True):
    """What a prefix found on `found_on` does to the decisions of `artefact`.

    `before` and `after` are shares of held-out prompts that go to the frontier, `flipped` the
    share of those that could still move and did: of the local ones for `up` and `adaptive`, of
    the others for `down`. `random_after` and `random_flipped` are the means over random prefixes.
    `defended_before` and `defended_after` are the shares under the defence.
    """

    artefact: str
    found_on: str
    direction: str
    prefix: str
    target: float
    before: float
    after: float
    flipped: float
    random_after: float
    random_flipped: float
    as_suffix: float
    defended_before: float
    defended_after: float


def vocabulary(directory: Path) -> list[str]:
    """Whole words and signs of the artefact's tokenizer, without special tokens, sorted.

    Raises ArtefactError when there is no tokenizer in the directory.
    """
    try:
        model = _VOCABULARY.decode((directory / "tokenizer.json").read_bytes())["model"]["vocab"]
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as exc:
        raise ArtefactError("tokenizer.json", f"has no vocabulary to attack with: {exc}") from exc
    tokens = model if isinstance(model, dict) else [entry[0] for entry in model]
    return sorted(
        token
        for token in tokens
        if token.isprintable() and token.strip() and not token.startswith(("##", "["))
    )


async def search(
    gains: Gains, words: Sequence[str], prompts: Sequence[str], sign: int, budget: Budget
) -> str:
    """The prefix that moves the mean gain of the prompts furthest in the direction of `sign`.

    Coordinate hill climbing: the prefix grows token by token, then single places are tried anew,
    until the queries are spent. A token stays only when it is better on the batch at hand.
    """
    rng = Random(budget.seed)
    prefix: list[str] = []
    step = 0
    cost = (budget.candidates + 1) * budget.batch
    while (step + 1) * cost <= budget.queries:
        place = step if step < budget.tokens else rng.randrange(budget.tokens)
        batch = rng.sample(list(prompts), min(budget.batch, len(prompts)))
        tries = [prefix] if len(prefix) > place else []
        for word in rng.sample(list(words), budget.candidates):
            tries.append([*prefix[:place], word, *prefix[place + 1 :]])
        texts = [prefixed(" ".join(trial), text) for trial in tries for text in batch]
        found = await gains(texts)
        means = [
            sign * fmean(found[i * len(batch) : (i + 1) * len(batch)]) for i in range(len(tries))
        ]
        prefix = tries[max(range(len(tries)), key=means.__getitem__)]
        step += 1
    return " ".join(prefix)


def prefixed(prefix: str, text: str) -> str:
    return f"{prefix} {text}" if prefix else text


def dropped(text: str) -> str:
    """The text without its first characters; short texts keep what they have."""
    return text[DROPPED:] if len(text) > 2 * DROPPED else text


def defend(full: float, without: float) -> float:
    return min(full, without) if abs(full - without) > DISAGREE else full


def threshold_for(gains: Sequence[float], share: float) -> float:
    """The gain above which `share` of the prompts lie."""
    ordered = sorted(gains, reverse=True)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


class Measured(msgspec.Struct, frozen=True):
    """Gains of the held-out prompts under one prefix, as scored and as defended."""

    plain: list[float]
    defended: list[float]


def defended_by(gains: Gains) -> Gains:
    """The same router behind the defence; every text is scored twice."""

    async def both(texts: Sequence[str]) -> list[float]:
        plain = await gains(texts)
        without = await gains([dropped(text) for text in texts])
        return [defend(full, less) for full, less in zip(plain, without, strict=True)]

    return both


async def under(gains: Gains, prompts: Sequence[str], prefix: str) -> Measured:
    texts = [prefixed(prefix, text) for text in prompts]
    return Measured(await gains(texts), await defended_by(gains)(texts))


class Stage(msgspec.Struct, frozen=True):
    """Where gadgets are measured: the `artefact` that scores, held-out prompts, and the words
    that random prefixes are drawn from."""

    artefact: str
    prompts: Sequence[str]
    words: Sequence[str]
    seed: int = SEED


async def effects(
    stage: Stage, gains: Gains, found_on: str, gadgets: Mapping[str, str]
) -> list[Effect]:
    """What each gadget, by its direction, does on the stage, at each of `SHARES`."""
    rng, prompts = Random(stage.seed), stage.prompts
    clean = await under(gains, prompts, "")
    found: list[Effect] = []
    for direction, prefix in gadgets.items():
        attacked = await under(gains, prompts, prefix)
        suffixed = await gains([f"{text} {prefix}" for text in prompts])
        controls: list[list[float]] = []
        for _ in range(CONTROLS):
            random = " ".join(rng.sample(list(stage.words), max(1, len(prefix.split()))))
            controls.append(await gains([prefixed(random, text) for text in prompts]))
        up = direction != DOWN
        for share in SHARES:
            limit = threshold_for(clean.plain, share)
            flips = [_flipped(clean.plain, control, limit, up) for control in controls]
            found.append(
                Effect(
                    artefact=stage.artefact,
                    found_on=found_on,
                    direction=direction,
                    prefix=prefix,
                    target=share,
                    before=_share(clean.plain, limit),
                    after=_share(attacked.plain, limit),
                    flipped=_flipped(clean.plain, attacked.plain, limit, up),
                    random_after=fmean(_share(control, limit) for control in controls),
                    random_flipped=fmean(flips),
                    as_suffix=_share(suffixed, limit),
                    defended_before=_share(clean.defended, limit),
                    defended_after=_share(attacked.defended, limit),
                )
            )
    return found


def _share(gains: Sequence[float], limit: float) -> float:
    return fmean(float(gain > limit) for gain in gains)


def _flipped(before: Sequence[float], after: Sequence[float], limit: float, up: bool) -> float:
    could = [new for old, new in zip(before, after, strict=True) if (old > limit) != up]
    return fmean(float((new > limit) == up) for new in could) if could else 0.0


def gains_of(router: Router) -> Gains:
    """Scores single texts. A text without a score counts as gain 0."""

    async def gains(texts: Sequence[str]) -> list[float]:
        queries = [Query((Turn("user", text),)) for text in texts]
        return [score.gain or 0.0 for score in await score_all(router, queries)]

    return gains


async def attack(
    artefacts: Sequence[str], data: Path, budget: Budget, adaptive: bool = False
) -> list[Effect]:
    """Find gadgets on every artefact, and measure each on every artefact. `adaptive` adds one
    that is searched for on the defended scores, by somebody who knows the defence.

    Raises ArtefactError.
    """
    prompts = shared_prompts(data, SEARCH_EACH + HELD_EACH, budget.seed)
    known = [text for texts in prompts.values() for text in texts[:SEARCH_EACH]]
    held = [text for texts in prompts.values() for text in texts[SEARCH_EACH:]]
    routers = {name: open_router(name) for name in artefacts}
    words = {name: vocabulary(find_artefact(name)) for name in artefacts}
    try:
        gadgets: dict[str, dict[str, str]] = {}
        for name, router in routers.items():
            plain = gains_of(router)
            aims: dict[str, tuple[Gains, int]] = {UP: (plain, 1), DOWN: (plain, -1)}
            if adaptive:
                aims[ADAPTIVE] = (defended_by(plain), 1)
            gadgets[name] = {
                direction: await search(gains, words[name], known, sign, budget)
                for direction, (gains, sign) in aims.items()
            }
        found: list[Effect] = []
        for name, router in routers.items():
            stage = Stage(name, held, words[name], budget.seed)
            for origin in artefacts:
                found += await effects(stage, gains_of(router), origin, gadgets[origin])
        return found
    finally:
        for router in routers.values():
            await router.aclose()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m routers.evals.attack")
    parser.add_argument("--artefact", action="append", metavar="NAME_OR_DIR", help="repeatable")
    parser.add_argument("--data", type=Path, default=data_directory(), metavar="DIR")
    parser.add_argument("--queries", type=int, default=QUERIES, help="scores a search may ask for")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--adaptive", action="store_true", help="attack the defence, too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.data is None:
        print(no_data())
        return 2
    budget = Budget(queries=given.queries, seed=given.seed)
    try:
        names = given.artefact or [DEFAULT]
        found = asyncio.run(attack(names, given.data, budget, given.adaptive))
    except (ArtefactError, OSError) as exc:
        print(exc)
        return 2
    if given.json is not None:
        text = msgspec.json.format(msgspec.json.encode(found), indent=2)
        given.json.write_bytes(text + b"\n")
    _print(found)
    return 0


def _print(found: Sequence[Effect]) -> None:
    for prefix in dict.fromkeys((e.found_on, e.direction, e.prefix) for e in found):
        print(f"found on {prefix[0]}, {prefix[1]}: {prefix[2]!r}")
    print("\nshares of calls to the frontier; flipped: of the prompts that could move")
    for effect in found:
        print(f"{effect.artefact} (found on {effect.found_on}) {effect.direction}", end=" ")
        print(f"at {effect.target:.0%}: {effect.before:.1%} -> {effect.after:.1%},", end=" ")
        print(f"flipped {effect.flipped:.1%}; as suffix {effect.as_suffix:.1%};", end=" ")
        print(f"random {effect.random_after:.1%}, flipped {effect.random_flipped:.1%};", end=" ")
        print(f"defended {effect.defended_before:.1%} -> {effect.defended_after:.1%}")


if __name__ == "__main__":
    sys.exit(main())
