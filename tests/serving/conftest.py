"""A server of a tiny model."""

import pytest
from server_rig import Server, settings

from tiny_recognisers import save_recogniser


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    return save_recogniser(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def server(model_dir):
    with Server(settings(model_dir)) as running:
        yield running
