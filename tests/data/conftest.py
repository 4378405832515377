"""What the tests of synthetic speech share."""

import pytest

from unispeech.data.espeak import EspeakProcess


@pytest.fixture(scope="session")
def has_espeak() -> None:
    """Skip, with the reason, where espeak-ng is not installed."""
    try:
        EspeakProcess("en").close()
    except ImportError as error:
        pytest.skip(str(error))
