"""Hub ids without a Hub: one question, one line; nothing here goes out to the network."""

import logging
import socket
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

import tiny
from unispeech import UniSpeechForCTC
from unispeech.checkpoints import hub
from unispeech.checkpoints.hub import is_on_hub, model_files
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.errors import CheckpointError

NEITHER = (
    r"^someone/tiny: must be a model directory or a Hub id that can be reached, but is neither; check the "
    r"name and the connection\.$"
)


@pytest.fixture
def no_network(monkeypatch):
    """A machine whose names resolve to nothing, and on which nobody may wait."""
    asked = []

    def refuse(*arguments, **settings):
        asked.append(arguments)
        raise socket.gaierror(-2, "Name or service not known")

    def complain(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", complain)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    return asked


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache of the Hub that holds someone/tiny."""
    commit = "0" * 40
    repository = tmp_path / "models--someone--tiny"
    save_model(tiny.build(UniSpeechForCTC), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def answer(monkeypatch, error_class, status=404):
    def refuse(url, *, token):
        raise error_class("refused", response=SimpleNamespace(headers={}, request=None, status_code=status))

    monkeypatch.setattr(hub, "get_hf_file_metadata", refuse)


def test_a_hub_that_is_away_is_asked_once_and_silently(tmp_path, no_network, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match=NEITHER):
        load_model("someone/tiny", cache_dir=tmp_path)
    assert 1 <= len(no_network) <= 2  # the first request of a process asks for a list of agents too
    assert caplog.messages == []


def test_what_the_cache_holds_needs_no_hub(cached, no_network, caplog):
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_model("someone/tiny", cache_dir=cached), UniSpeechForCTC)
        assert (model_files("someone/tiny") / "config.json").is_file()
    assert caplog.messages == []


def test_a_name_that_the_hub_does_not_know(tmp_path, monkeypatch):
    answer(monkeypatch, RepositoryNotFoundError)
    with pytest.raises(CheckpointError, match=NEITHER):
        is_on_hub("someone/tiny", cache_dir=tmp_path)


def test_a_hub_that_is_broken_is_away(tmp_path, monkeypatch):
    answer(monkeypatch, HfHubHTTPError, status=503)
    with pytest.raises(CheckpointError, match=NEITHER):
        is_on_hub("someone/tiny", cache_dir=tmp_path)


def test_a_refusal_of_the_hub_is_its_own_to_tell(tmp_path, monkeypatch):
    answer(monkeypatch, GatedRepoError, status=403)
    assert is_on_hub("someone/tiny", cache_dir=tmp_path)
    answer(monkeypatch, HfHubHTTPError)
    assert is_on_hub("someone/tiny", subfolder="base", cache_dir=tmp_path)


def test_a_hub_that_has_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url, *, token: asked.append((url, token)))
    assert is_on_hub("someone/tiny", subfolder="base", revision="v1", token="t", cache_dir=tmp_path)
    [(url, token)] = asked
    assert url.endswith("/someone/tiny/resolve/v1/base/config.json")
    assert token == "t"


def test_what_can_be_no_id(tmp_path, no_network):
    with pytest.raises(CheckpointError, match=r"some--one/ti\.\.ny: must be a model directory or a Hub id"):
        is_on_hub("some--one/ti..ny", cache_dir=tmp_path)


def test_files_of_a_hub_model_are_fetched(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(repo, *, allow_patterns, local_files_only):
        asked.update(repo=repo, patterns=allow_patterns, is_away=local_files_only)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    for is_away in (False, True):
        monkeypatch.setattr(hub, "is_on_hub", lambda source, here=not is_away: here)
        assert model_files("someone/unispeech-xy") == tmp_path
        assert asked == {"repo": "someone/unispeech-xy", "patterns": ["*.json"], "is_away": is_away}
    assert model_files(tmp_path) == tmp_path
