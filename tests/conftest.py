"""Fixtures of the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every machine, so that what has passed passes again; `make test-random` draws others.
# How long examples take says how busy the machine is, not whether anything is wrong.
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **SLOW)
settings.register_profile("random", **SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recordings and golden numbers that lies beside the project, or a skip with the reason."""
    folder = Path(os.environ.get("UNISPEECH_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no recordings and golden numbers at {folder}; set UNISPEECH_SHARED to their folder")
    return folder
