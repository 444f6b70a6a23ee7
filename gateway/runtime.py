"""What one worker holds. Built once by `gateway.compose`, handed to the pipeline and the admin API.

Nothing in it is shared with another worker: what workers share lives in the store and the
database.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.auth import Keyring
from gateway.catalog import Catalog
from gateway.config import Config
from gateway.detection import Detector
from gateway.learning import Learning, RouterSlot
from gateway.ledger import Ledger
from gateway.policies import Policies
from gateway.records import Database
from gateway.steering import Steering
from gateway.store.client import Store
from gateway.telemetry import Telemetry


@dataclass(frozen=True)
class Runtime:
    """`catalog` knows backends, models, prices and aliases; `keyring` turns a presented key into
    a Principal; `policies` gives the active policy by name; `router` holds the router that the
    operator activated, and `learning` may replace it; `detector` reads texts for data classes;
    `steering` keeps the promises of policies.
    `parent` names the process that started this worker and its siblings, and no other anywhere."""

    config: Config
    parent: str
    store: Store
    database: Database
    ledger: Ledger
    keyring: Keyring
    policies: Policies
    catalog: Catalog
    router: RouterSlot
    detector: Detector
    telemetry: Telemetry
    learning: Learning
    steering: Steering
