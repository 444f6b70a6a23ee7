"""`tollhouse check` and `tollhouse schema`."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.cli.errors import OK, USAGE, CliError
from gateway.cli.output import print_fields, print_json, print_table
from gateway.config import Config, load_config
from gateway.config import schema as config_schema


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError, and CliError for what is installed."""
    from gateway.cards import build_cards
    from gateway.compose import verify
    from gateway.doubts import doubts

    config = load_config(args.config)
    verify(config)
    found = {**_summary(config), "onnxruntime": _runtime(config)}
    found["doubts"] = doubts(config)
    cards = build_cards(config)
    found["cards"] = [
        {"model": target, "card": cards[target].describe() if target in cards else "its tier's"}
        for target in _targets(config)
    ]
    if args.json:
        print_json(found)
        return OK
    backends, card_rows = found.pop("backends"), found.pop("cards")
    doubtful = found.pop("doubts")
    print_fields(found.items())
    print()
    columns = {"name": "BACKEND", "provider": "PROVIDER", "tier": "TIER", "models": "MODELS"}
    print_table(backends, {**columns, "facts": "FACTS"})
    print()
    print_table(card_rows, {"model": "MODEL", "card": "MODEL CARD"})
    print()
    for doubt in doubtful:
        print(f"to look at: {doubt}")
    print(f"{args.config}: valid")
    return OK


def schema(_: argparse.Namespace) -> int:
    print_json(config_schema())
    return OK


def _targets(config: Config) -> list[str]:
    return [f"{name}/{model}" for name, b in config.backends.items() for model in b.models]


def _summary(config: Config) -> dict[str, Any]:
    return {
        "listens on": f"{config.server.host}:{config.server.port}",
        "workers": config.server.workers,
        "data directory": config.data_dir,
        "store": "given by store.url" if config.store.url else "embedded Valkey",
        "database": "given by database.url" if config.database.url else "SQLite",
        "router": config.router.artefact,
        "policies": sorted(config.policies),
        "policy source": config.policy.source,
        "default policy": config.policy.default,
        "aliases": sorted(config.aliases),
        "keys": len(config.keys),
        "scopes": [scope.id for scope in config.scopes],
        "admin API": "token given" if config.admin.token else "token from the data directory",
        "backends": [
            {
                "name": name,
                "provider": backend.provider,
                "tier": backend.tier,
                "models": sorted(backend.models),
                "facts": backend.facts,
            }
            for name, backend in config.backends.items()
        ],
    }


def _runtime(config: Config) -> str:
    """Which ONNX Runtime is there; the heuristic router needs none."""
    if config.router.artefact in ("heuristic", "none"):
        return "not needed"
    from routers.onnx.manifest import ArtefactError, RuntimeMissingError
    from routers.onnx.session import check_distributions

    try:
        return check_distributions()
    except RuntimeMissingError as exc:
        if config.router.on_missing == "unclassified":
            return "missing, every request will be unclassified"
        raise CliError(f"router.artefact: {exc}", USAGE) from exc
    except ArtefactError as exc:
        raise CliError(f"router.artefact: {exc}", USAGE) from exc
