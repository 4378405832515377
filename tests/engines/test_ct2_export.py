import numpy as np
import pytest

from tiny_recognisers import PHONES, babble, save_recogniser, tiny_recogniser
from unispeech import Transcriber
from unispeech.engines.export import export_recogniser
from unispeech.errors import CheckpointError

ctranslate2 = pytest.importorskip("ctranslate2")

LARGE_KIND = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}


@pytest.mark.parametrize("conv_bias", [True, False])
def test_written_files_follow_the_plain_path_in_ctranslate2(tmp_path, conv_bias):
    folder = save_recogniser(tmp_path / "model", **{**LARGE_KIND, "conv_bias": conv_bias})
    report = export_recogniser(folder, tmp_path / "out", "ct2")
    assert report.parity.largest_difference < 5e-4  # of logits up to 40
    assert report.parity.frame_agreement == 1.0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.bin", "vocab.json", "parity.json"}


def test_ctranslate2_reads_it_by_itself(tmp_path):
    from transformers import Wav2Vec2Processor

    folder = save_recogniser(tmp_path / "model", **LARGE_KIND)
    export_recogniser(folder, tmp_path / "out", "ct2")
    processor = Wav2Vec2Processor.from_pretrained(tmp_path / "out")
    waveform = babble(1.5)
    inputs = processor(waveform, sampling_rate=16_000, return_tensors="np").input_values[None]
    model = ctranslate2.models.Wav2Vec2(str(tmp_path / "out"), device="cpu")
    logits = np.array(model.encode(ctranslate2.StorageView.from_array(inputs)))
    best = logits[0].argmax(axis=1)
    named = best[np.flatnonzero(np.diff(best, prepend=-1))]
    found = [PHONES.symbols[token] for token in named if token not in PHONES.special]
    expected = Transcriber(folder, engine="torch").transcribe(waveform, 16_000).phones
    assert len(expected) > 3
    assert found == [phone.phone for phone in expected]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("feat_extract_norm", {"feat_extract_norm": "group"}),
        ("do_stable_layer_norm", {"do_stable_layer_norm": False}),
        ("feat_extract_activation", {"feat_extract_activation": "relu"}),
        ("hidden_act", {"hidden_act": "relu"}),
        ("layer_norm_eps", {"layer_norm_eps": 1e-6}),
        ("num_conv_pos_embeddings", {"num_conv_pos_embeddings": 16}),
        ("num_conv_pos_embedding_groups", {"num_conv_pos_embedding_groups": 4}),
        ("adapter_attn_dim", {"adapter_attn_dim": 4}),
        ("conv_stride", {"conv_stride": (5, 2, 2, 2, 2, 2, 1)}),
    ],
)
def test_other_networks_are_refused(tmp_path, field, changes):
    from unispeech.engines.ct2_files import check_fields

    model = tiny_recogniser(**{**LARGE_KIND, **changes})
    with pytest.raises(CheckpointError, match=rf"a: `{field}` must be .* for CTranslate2, but is .*; export"):
        check_fields(model, "a")
    check_fields(tiny_recogniser(**LARGE_KIND), "a")
