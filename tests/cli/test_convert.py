"""`unispeech convert` as a user runs it."""

import argparse
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from unispeech.checkpoints.huggingface import load_model
from unispeech.cli import main


def shape_of_the_original(path: Path) -> None:
    """A fine-tuned file of the smallest kind, under fairseq's keys."""

    def linear(*shape):
        return {"weight": torch.randn(shape), "bias": torch.zeros(shape[0])}

    parts = {
        "feature_extractor.conv_layers.0.0": {"weight": torch.randn(8, 1, 10)},
        "feature_extractor.conv_layers.0.2": {"weight": torch.ones(8), "bias": torch.zeros(8)},
        "layer_norm": {"weight": torch.ones(8), "bias": torch.zeros(8)},
        "post_extract_proj": linear(16, 8),
        "encoder.pos_conv.0": {
            "bias": torch.zeros(16),
            "weight_g": torch.ones(1, 1, 4),
            "weight_v": torch.randn(16, 8, 4),
        },
        "encoder.layer_norm": {"weight": torch.ones(16), "bias": torch.zeros(16)},
    }
    model = OrderedDict({"w2v_encoder.w2v_model.mask_emb": torch.zeros(16)})
    for part, tensors in parts.items():
        model.update({f"w2v_encoder.w2v_model.{part}.{name}": tensor for name, tensor in tensors.items()})
    model.update({f"w2v_encoder.proj.{name}": tensor for name, tensor in linear(6, 16).items()})
    encoder = argparse.Namespace(
        encoder_layers=0, encoder_embed_dim=16, encoder_attention_heads=2, conv_feature_layers="[(8, 10, 5)]"
    )
    args = argparse.Namespace(arch="wav2vec_ctc", w2v_args=encoder, normalize=True, mask_prob=0.5)
    torch.save({"args": args, "model": model}, path)


@pytest.fixture
def checkpoint(tmp_path):
    shape_of_the_original(tmp_path / "x.pt")
    return tmp_path / "x.pt"


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Call the command in this process: exit status, stdout, stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_a_file_becomes_a_directory(checkpoint, tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    done = subprocess.run(
        [sys.executable, "-m", "unispeech", "convert", "x.pt", "-o", "out", "--vocab", "vocab.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "out: UniSpeechForCTC (fine-tuned), 938 parameters, 6 classes, blank 2, waveforms normalised\n"
    )
    assert load_model(tmp_path / "out")(torch.randn(1, 100)).logits.shape == (1, 19, 6)


def test_a_missing_vocabulary_is_pointed_out(checkpoint, tmp_path, capsys):
    status, out, err = run(capsys, checkpoint, "-o", tmp_path / "out")
    assert status == 0
    assert "UniSpeechForCTC" in out
    assert "no vocabulary was given: transcribing needs one" in err
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


def test_a_payload_is_refused(tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'evidence'}",)

    torch.save({"model": {}, "args": Payload()}, tmp_path / "x.pt")
    status, out, err = run(capsys, tmp_path / "x.pt", "-o", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "refused: its pickle calls" in err
    assert not (tmp_path / "evidence").exists()
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_does_not_fit(checkpoint, tmp_path, capsys):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    status, _, err = run(capsys, checkpoint, "-o", tmp_path / "out", "--vocab", tmp_path / "vocab.json")
    assert status == 2
    assert "must have 2 phones for a head of 6 classes (4 are special), but has 1" in err
    assert not (tmp_path / "out").exists()
