"""Fixtures of the whole suite."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recordings and golden numbers that lies beside the project, or a skip with the reason."""
    folder = Path(os.environ.get("UNISPEECH_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no recordings and golden numbers at {folder}; set UNISPEECH_SHARED to their folder")
    return folder
