"""Tiny models with random weights, saved as whole model directories, and sounds to feed them."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from unispeech import UniSpeechConfig, UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.checkpoints.huggingface import save_model
from unispeech.text import Vocabulary

PHONES = Vocabulary(
    symbols=("<pad>", "<unk>", "a", "t͡ʃ", "ɹ", "ŋ", "iː"),
    blank=0,
    unknown=1,
    kind="phones",
    special=frozenset({0, 1}),
)
WORD_PHONES = Vocabulary(symbols=("<pad>", "|", "a", "t", "s"), blank=0, word_boundary=1, kind="phones")
LETTERS = Vocabulary(symbols=("e", "n", "o", "|", "<pad>"), blank=4, word_boundary=3, kind="characters")


def tiny_config(**overrides) -> UniSpeechConfig:
    fields = dict(
        conv_dim=(16,) * 7,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        num_codevectors_per_group=4,
        num_codevector_groups=2,
        codevector_dim=16,
        proj_codevector_dim=16,
    )
    return UniSpeechConfig(**{**fields, **overrides})


def tiny_recogniser(vocabulary: Vocabulary = PHONES, seed: int = 0, **overrides) -> UniSpeechForCTC:
    """A recogniser that writes many different symbols, because its head is scaled up."""
    torch.manual_seed(seed)
    config = tiny_config(vocab_size=len(vocabulary), pad_token_id=vocabulary.blank, **overrides)
    model = UniSpeechForCTC(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(60.0)
    return model


def save_recogniser(
    folder: Path, vocabulary: Vocabulary = PHONES, *, do_normalize: bool = True, **overrides
) -> Path:
    save_model(tiny_recogniser(vocabulary, **overrides), folder, vocabulary, do_normalize=do_normalize)
    return folder


def save_classifier(folder: Path, labels: list[str], seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = tiny_config(id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
    model = UniSpeechForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(50.0)
    save_model(model, folder, do_normalize=True)
    return folder


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose colour and level change a few times a second."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=round(seconds * 16_000))
    levels = np.interp(np.arange(len(noise)), np.arange(0, len(noise) + 2000, 2000), _levels(rng, len(noise)))
    smoothed = np.convolve(noise, np.ones(5) / 5, mode="same")
    return (np.where(levels > 0.1, smoothed, noise) * levels).astype(np.float32)


def _levels(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.uniform(0.0, 0.2, size=len(np.arange(0, length + 2000, 2000)))


def write_babble(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, babble(seconds, seed), 16_000, subtype="PCM_16")
    return path
