from __future__ import annotations

from pathlib import Path

import pytest

from routers.evals.patterns import data_directory


@pytest.fixture(scope="session")
def routing_data() -> Path:
    directory = data_directory()
    if directory is None:
        pytest.skip("the labelled data is not here: set TOLLHOUSE_DATA to its directory")
    return directory
