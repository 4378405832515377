"""`push_to_hub` is transformers' and sends what `save_pretrained` writes; the Hub is a stand-in here."""

import huggingface_hub
import pytest

import unispeech
from tiny import config

CLASSES = [
    "UniSpeechModel",
    "UniSpeechForCTC",
    "UniSpeechForSequenceClassification",
    "UniSpeechForPreTraining",
]


@pytest.mark.parametrize("name", CLASSES)
def test_weights_and_configuration_arrive(monkeypatch, name):
    sent = []

    def create_commit(api, repo_id, operations, **settings):
        sent.extend(operation.path_in_repo for operation in operations)

    def create_repo(api, repo_id, **settings):
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr(
        "huggingface_hub.ModelCard.load", lambda repo_id, **settings: huggingface_hub.ModelCard("---\n---\n")
    )
    getattr(unispeech, name)(config()).push_to_hub("somebody/model")
    assert {"config.json", "model.safetensors", "README.md"} <= set(sent)
