import json
from dataclasses import asdict

import numpy as np
import pytest
import soundfile

from labelled_cuts import cut, write_cuts
from tiny_recognisers import PHONES, babble, save_recogniser, write_babble
from unispeech import Transcriber
from unispeech.engines import comparison, export
from unispeech.engines.comparison import Measured, compare, measure_engines
from unispeech.engines.export import export_recogniser
from unispeech.errors import CheckpointError

LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
NORMS = {"group": {}, "layer": LAYER}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_written_files_follow_the_plain_path(tmp_path, to, norm):
    pytest.importorskip("openvino" if to == "openvino" else "onnxruntime")
    folder = save_recogniser(tmp_path / "model", **NORMS[norm])
    report = export_recogniser(folder, tmp_path / "out", to)
    assert report.parity.largest_difference < 5e-4  # of logits up to 40
    assert report.parity.frame_agreement == 1.0
    assert min(report.speed.plain, report.speed.export) > 0
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written == asdict(report)
    assert (written["to"], written["num_sentences"], written["error_rates"]) == (to, 6, None)
    assert (tmp_path / "out" / "vocab.json").is_file()
    assert not list(tmp_path.glob(".out*"))


def test_sherpa_gives_the_same_tokens(tmp_path):
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    folder = save_recogniser(tmp_path / "model")
    export_recogniser(folder, tmp_path / "out", "sherpa")
    recogniser = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(tmp_path / "out" / "model.onnx"), tokens=str(tmp_path / "out" / "tokens.txt")
    )
    waveform = babble(1.5)
    stream = recogniser.create_stream()
    stream.accept_waveform(16_000, waveform)
    recogniser.decode_stream(stream)
    expected = [
        phone.phone for phone in Transcriber(folder, engine="torch").transcribe(waveform, 16_000).phones
    ]
    found = [token for token in stream.result.tokens if token not in ("<unk>",)]
    assert len(expected) > 3
    assert found == expected


def test_sherpa_always_normalises(tmp_path):
    folder = save_recogniser(tmp_path / "model", do_normalize=False)
    with pytest.raises(CheckpointError, match=r"`do_normalize` must be true for sherpa-onnx, .* but"):
        export_recogniser(folder, tmp_path / "out", "sherpa")
    assert not (tmp_path / "out").exists()


def test_an_unknown_target_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"file: must be a folder, but is a file; name another, or"):
        export_recogniser(tmp_path / "gone", tmp_path / "file", "onnx")
    with pytest.raises(ValueError, match="`to` must be one of onnx, openvino, sherpa, ct2, but is 'tea'"):
        export_recogniser(tmp_path, tmp_path / "out", "tea")


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [("openvino", "openvino", "openvino"), ("sherpa", "onnx", "onnx"), ("ct2", "ctranslate2", "ct2")],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, to, package, extra):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ImportError, match=rf"export to {to} needs {package}; .*'unispeech\[{extra}\]'"):
        export_recogniser(tmp_path, tmp_path / "out", to)


def test_every_engine_is_measured(tmp_path, monkeypatch):
    folder = save_recogniser(tmp_path / "model")
    monkeypatch.setattr(comparison, "is_installed", lambda name: name != "onnxruntime")
    found = list(measure_engines(folder, babble(0.5), repeats=1))
    names = {f"{row.engine} {row.precision}" for row in found if isinstance(row, Measured)}
    assert {"torch float32", "torch bf16"} <= names
    assert dict(row for row in found if not isinstance(row, Measured))["onnxruntime float32"].startswith(
        "not"
    )
    [plain] = [row for row in found if isinstance(row, Measured) and row.engine == "torch"][:1]
    assert (plain.parity.largest_difference, plain.parity.frame_agreement) == (0.0, 1.0)
    assert plain.speed > 0


def test_comparing_counts_frames():
    one = [np.log(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))]
    other = [np.log(np.array([[0.9, 0.1], [0.6, 0.4]], np.float32))]
    parity = compare(one, other)
    assert parity.frame_agreement == 0.5
    assert parity.largest_difference == pytest.approx(np.log(3), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "`--seconds` must be"),
        (["--seconds", "inf"], "`--seconds` must be positive and finite, but is inf"),
        (["--repeats", "0"], "`--repeats`"),
    ],
)
def test_settings_of_bench(tmp_path, arguments, message, capsys):
    from unispeech.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["bench", str(tmp_path), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bench_prints(tmp_path, capsys):
    from unispeech.cli import main

    folder = save_recogniser(tmp_path / "model", vocabulary=PHONES)
    soundfile.write(tmp_path / "a.wav", babble(0.5), 16_000)
    with pytest.raises(SystemExit) as stop:
        main(["bench", str(folder), str(tmp_path / "a.wav"), "--seconds", "0.5", "--repeats", "1"])
    assert not stop.value.code
    assert "torch float32" in capsys.readouterr().out


def test_export_prints_its_report(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    from unispeech.cli import main

    folder = save_recogniser(tmp_path / "model", vocabulary=PHONES)
    audio = write_babble(tmp_path / "a.wav", 0.5)
    text = Transcriber(folder, engine="torch").transcribe(audio).text
    cuts = [cut(audio, phones=f"{text} a"), cut(tmp_path / "gone.wav", phones="a")]
    write_cuts(tmp_path / "cuts", cuts)
    command = ["export", str(folder), "-o", str(tmp_path / "out"), "--to", "onnx"]
    for more, status in (([], 0), (["--corpus", str(tmp_path / "cuts")], 1)):
        with pytest.raises(SystemExit) as stop:
            main([*command, *more])
        assert (stop.value.code or 0) == status
        out = capsys.readouterr().out
        assert "100.00 % of frames agree" in out
        assert "s of audio per second, torch" in out
        assert ("PER" in out) == bool(more)
    rate = f"{100 / (len(text.split()) + 1):.2f} %"
    assert f"PER: {rate}, torch {rate}, 1 utterances of" in out
    assert "1 utterances left out: their audio cannot be read" in out
    assert "corpus" in json.loads((tmp_path / "out" / "parity.json").read_text())
