"""The configuration as types. The JSON Schema, the loader and the documentation follow from here.

Every struct rejects unknown keys. Durations are seconds unless the name says otherwise; prices are
USD per 1,000,000 tokens.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from backends.base import Timeouts
from backends.prices import TierPrice
from routers.types import Policy

_USUAL = Timeouts()
SECRET_FIELDS = frozenset({"api_key", "token", "key", "hash_key"})


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every part of the configuration."""


class ServerConfig(Section, frozen=True):
    """`max_in_flight` is per worker: past it requests are shed with 503 at once.
    `request_deadline` bounds a whole request over all attempts; `drain` is the grace time after
    SIGTERM. `max_body_mb` is for /v1."""

    host: str = "127.0.0.1"
    port: int = 4100
    workers: int = 1
    max_body_mb: int = 50
    max_in_flight: int = 2000
    request_deadline: float = 600.0
    drain: float = 30.0


class AdminConfig(Section, frozen=True):
    """`token` opens /admin/v1. Without one, it is made in the data directory."""

    token: str = ""


class AuthConfig(Section, frozen=True):
    """`hash_key` keys the hash under which key secrets are stored. Without one, a key is made in
    the data directory on the first start."""

    hash_key: str = ""


class StoreConfig(Section, frozen=True):
    """Redis or Valkey. Without `url` an embedded Valkey is started in the data directory.
    `lease` is how long a crashed worker's reservation is held. `on_failure` says what happens to
    requests while the store is gone: `closed` refuses them, `open` serves those that no budget
    and no audit duty binds, without limits and cache."""

    url: str = ""
    deadline_ms: float = 500.0
    lease: float = 60.0
    maxmemory_mb: int = 512
    on_failure: Literal["closed", "open"] = "closed"


class DatabaseConfig(Section, frozen=True):
    """SQLAlchemy URL; without one, SQLite in the data directory."""

    url: str = ""


class RecordsConfig(Section, frozen=True):
    """`keep_days`: older decision and usage records are deleted; None keeps them for ever."""

    keep_days: float | None = None


class CardConfig(Section, frozen=True):
    """How able one backend's model is, where its name does not tell. `like`: a model whose card
    the artefact lists. `offset`: on the logit scale, above 0 for better, on top of `like` or of
    the reference. `base`: the reference itself, `local` or `frontier`; the tier's without it."""

    like: str = ""
    offset: float | None = None
    base: Literal["local", "frontier"] | None = None


class RouterConfig(Section, frozen=True):
    """`artefact`: a shipped artefact's name, a directory, `auto` (the shipped one that suits this
    machine), `heuristic`, or `none`.
    `on_missing`: whether a missing or corrupt artefact stops the start (`fail`) or leaves every
    request unclassified (`unclassified`). `cards`: model cards by `BACKEND/MODEL`."""

    artefact: str = "auto"
    on_missing: Literal["fail", "unclassified"] = "fail"
    cards: dict[str, CardConfig] = {}


class ModelConfig(Section, frozen=True):
    """`upstream` is the provider's name of the model when it differs from ours. What is left out
    comes from the built-in profile and price list. `tiers` are the prices of service tiers other
    than the usual one, by their names."""

    upstream: str = ""
    context_window: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] | None = None
    input: float | None = None
    output: float | None = None
    cached: float | None = None
    cache_write: float | None = None
    audio_input: float | None = None
    audio_output: float | None = None
    tiers: dict[str, TierPrice] = {}


class EngineConfig(Section, frozen=True):
    """The embedded llama.cpp engine. `model` is a GGUF file; empty means the shipped tiny one.
    `threads` 0: as many as this process may use cores, one for the tiny model."""

    model: str = ""
    parallel: int = 4
    context: int = 8192
    threads: int = 0


class TimeoutsConfig(Section, frozen=True):
    """Seconds, see `backends.base.Timeouts`. Where `first_token` is left out, the model decides."""

    connect: float = _USUAL.connect
    first_token: float | None = None
    idle: float = _USUAL.idle
    total: float = _USUAL.total

    def of(self, *, thinks_first: bool) -> Timeouts:
        """A model that reasons before it sends anything may take as long as for an answer that is
        not streamed: nothing tells it from one that hangs."""
        first = self.first_token
        if first is None:
            first = self.total if thinks_first else _USUAL.first_token
        return Timeouts(self.connect, first, self.idle, self.total)


class BackendConfig(Section, frozen=True):
    """One upstream. `provider` is a row of the provider table, `embedded` or `scripted`.
    `base_url` may hold several URLs: replicas of the same backend. `facts` are what residency
    rules look at. `gpu_second_usd` prices a local backend by its own time."""

    provider: str
    base_url: str | tuple[str, ...] = ()
    api_key: str = ""
    tier: str = "frontier"
    facts: dict[str, str] = {}
    models: dict[str, ModelConfig] = {}
    headers: dict[str, str] = {}
    timeouts: TimeoutsConfig = TimeoutsConfig()
    drop_params: bool = False
    gpu_second_usd: float = 0.0
    engine: EngineConfig | None = None
    stand_in: bool = False


class KeyConfig(Section, frozen=True):
    """A client key given by the configuration. `key` is the whole `th-...` key."""

    key: str
    org: str = "default"
    team: str = ""
    user: str = ""
    labels: tuple[str, ...] = ()
    policy: str = ""
    allow: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    budget_usd: float | None = None
    window: str | int = "month"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class ScopeConfig(Section, frozen=True):
    """Budget, limits and mandatory labels of an organisation or a team. `id` is `org:NAME` or
    `team:NAME`. `window` is `total`, `day`, `month` or a number of seconds."""

    id: str
    labels: tuple[str, ...] = ()
    budget_usd: float | None = None
    window: str | int = "month"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class PolicySource(Section, frozen=True):
    """`file`: policies come from this configuration and admin writes are refused. `database`:
    this configuration seeds an empty database and the admin API owns them from then on."""

    source: Literal["file", "database"] = "file"
    default: str = "default"


class CacheConfig(Section, frozen=True):
    enabled: bool = True
    max_entry_kb: int = 256


class RetryConfig(Section, frozen=True):
    attempts: int = 3
    max_wait: float = 5.0


class TelemetryConfig(Section, frozen=True):
    """`otlp_endpoint` turns traces on; `sample` is the share of requests traced."""

    otlp_endpoint: str = ""
    sample: float = 0.1
    service_name: str = "tollhouse"


class ShadowConfig(Section, frozen=True):
    """Shadow comparison: `share` of the local answers, in [0, 1], is asked of a frontier model
    too and both are judged. `backend`: `BACKEND/MODEL`, empty for the best that the policy's strong
    tier has for the request. `judge`: `BACKEND/MODEL`. `max_usd_per_day` bounds what comparisons
    cost over all workers and organisations (UTC days). `concurrency` and `queue` are per worker;
    what finds no place is dropped and counted. `timeout` bounds each call."""

    share: float = 0.0
    backend: str = ""
    judge: str = ""
    max_usd_per_day: float = 1.0
    concurrency: int = 2
    queue: int = 100
    timeout: float = 120.0


class LearningConfig(Section, frozen=True):
    """`capture`: keep the text of scored conversations, so that feedback becomes training rows;
    never that of a request with a residency label which `capture_labels` does not list.
    `capture_orgs`: of these organisations only, empty means all. Rows are deleted after
    `retention_days`, and beyond `max_rows` conversations and as many labels the oldest of the
    organisations that have the most."""

    capture: bool = False
    capture_labels: tuple[str, ...] = ()
    capture_orgs: tuple[str, ...] = ()
    retention_days: float = 30.0
    max_rows: int = 20_000
    shadow: ShadowConfig = ShadowConfig()


class Config(Section, frozen=True):
    """A whole configuration file."""

    data_dir: str = ".tollhouse"
    server: ServerConfig = ServerConfig()
    admin: AdminConfig = AdminConfig()
    auth: AuthConfig = AuthConfig()
    store: StoreConfig = StoreConfig()
    database: DatabaseConfig = DatabaseConfig()
    records: RecordsConfig = RecordsConfig()
    router: RouterConfig = RouterConfig()
    backends: dict[str, BackendConfig] = {}
    aliases: dict[str, str] = {}
    policy: PolicySource = PolicySource()
    policies: dict[str, Policy] = {}
    keys: tuple[KeyConfig, ...] = ()
    scopes: tuple[ScopeConfig, ...] = ()
    cache: CacheConfig = CacheConfig()
    retry: RetryConfig = RetryConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    learning: LearningConfig = LearningConfig()
