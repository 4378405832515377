"""Scores that are probabilities: measured and fitted by `evaluate_model`, applied by `Transcriber`."""

import pytest

from labelled_cuts import cut, write_cuts
from tiny_recognisers import PHONES, babble, save_classifier, save_recogniser, tiny_recogniser, write_babble
from unispeech import Transcriber
from unispeech.checkpoints.huggingface import save_model
from unispeech.cli import main
from unispeech.decoding.calibration import (
    Calibration,
    chance_calibration_error,
    expected_calibration_error,
    fit_calibration,
    is_right,
    read_calibration,
    write_calibration,
)
from unispeech.errors import CheckpointError
from unispeech.pipelines.evaluation import evaluate_model

MAP = Calibration(slope=0.5, bias=-1.0)


@pytest.fixture
def model_dir(tmp_path):
    return save_recogniser(tmp_path / "model")


@pytest.fixture
def data_dir(tmp_path, model_dir):
    """Speech in which most of what the model is unsure of is something else."""
    transcriber, cuts = Transcriber(model_dir), []
    for i in range(6):
        path = write_babble(tmp_path / "audio" / f"{i}.wav", 1.5, i)
        phones = transcriber.transcribe(path).phones
        said = [p.phone if p.score > 0.9 or j % 3 == 0 else "iː" for j, p in enumerate(phones)]
        cuts.append(cut(path, phones=" ".join(said), language="sv" if i % 2 else "ky"))
    return write_cuts(tmp_path / "data", cuts)


def scored(model_dir, data_dir):
    """Raw scores and whether they are right, by hand, of each utterance."""
    from unispeech.data.cuts import CutFiles

    found = []
    transcriber = Transcriber(model_dir, calibration=Calibration())
    for one in CutFiles(data_dir):
        phones = transcriber.transcribe(one.recording.sources[0].source).phones
        rights = is_right(one.supervisions[0].custom["phones"].split(), [phone.phone for phone in phones])
        found.append(([phone.score for phone in phones], rights))
    return found


def joined(utterances):
    return [s for scores, _ in utterances for s in scores], [r for _, rights in utterances for r in rights]


def test_a_calibration_beside_the_model_changes_scores_and_nothing_else(model_dir):
    waveform = babble(1.0)
    plain = Transcriber(model_dir).transcribe(waveform, 16000)
    write_calibration(model_dir, MAP)
    mapped = Transcriber(model_dir).transcribe(waveform, 16000)
    assert (mapped.text, len(mapped.phones)) == (plain.text, len(plain.phones))
    for before, after in zip(plain.phones, mapped.phones, strict=True):
        assert (after.start, after.end) == (before.start, before.end)
        assert after.score == pytest.approx(MAP.apply(before.score))
        assert after.score != before.score
    scores = [phone.score for phone in mapped.phones]
    if len(mapped.segments) == 1:
        assert mapped.segments[0].score == pytest.approx(sum(scores) / len(scores))
    assert Transcriber(model_dir, calibration=Calibration()).transcribe(waveform, 16000) == plain
    in_memory = Transcriber(tiny_recogniser(), vocabulary=PHONES, calibration=MAP).transcribe(waveform, 16000)
    assert [phone.score for phone in in_memory.phones] == pytest.approx(scores, abs=1e-4)


def test_a_broken_calibration_is_told(model_dir):
    (model_dir / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration\.json: must be an object with version 1"):
        Transcriber(model_dir)


def test_new_weights_do_not_keep_the_calibration_of_the_old_ones(model_dir):
    write_calibration(model_dir, MAP)
    (model_dir / "README.md").write_text("kept")
    save_model(tiny_recogniser(seed=1), model_dir, PHONES)
    assert (model_dir / "README.md").exists()
    assert not (model_dir / "calibration.json").exists()


def test_the_error_is_measured_with_the_calibration_that_is_there(model_dir, data_dir):
    scores, rights = joined(scored(model_dir, data_dir))
    assert 0 < sum(rights) < len(rights)
    raw = evaluate_model(model_dir, data_dir, by="language")
    assert raw.scores.ece == pytest.approx(expected_calibration_error(scores, rights), abs=1e-4)
    assert raw.scores.chance_ece == pytest.approx(chance_calibration_error(scores), abs=1e-3)
    assert raw.fit is None
    assert {name: group.ece > 0 for name, group in raw.groups.items()} == {"sv": True, "ky": True}
    write_calibration(model_dir, MAP)
    mapped = [MAP.apply(score) for score in scores]
    found = evaluate_model(model_dir, data_dir).scores.ece
    assert found == pytest.approx(expected_calibration_error(mapped, rights), abs=1e-4)


def test_the_fit_is_that_of_all_and_its_error_that_of_halves(model_dir, data_dir):
    utterances = scored(model_dir, data_dir)
    scores, rights = joined(utterances)
    write_calibration(model_dir, MAP)  # no matter
    fit = evaluate_model(model_dir, data_dir, calibrate=True).fit
    expected = fit_calibration(scores, rights)
    assert (fit.calibration.slope, fit.calibration.bias) == pytest.approx(
        (expected.slope, expected.bias), rel=1e-3
    )
    assert fit.num_symbols == len(scores)
    assert read_calibration(model_dir) == MAP
    even, odd = joined(utterances[::2]), joined(utterances[1::2])
    mapped = [fit_calibration(*odd).apply(score) for score in even[0]]
    mapped += [fit_calibration(*even).apply(score) for score in odd[0]]
    held_out = expected_calibration_error(mapped, [*even[1], *odd[1]])
    assert fit.held_out_ece == pytest.approx(held_out, abs=1e-4)
    assert fit.chance_ece == pytest.approx(chance_calibration_error(mapped), abs=1e-3)
    assert held_out != pytest.approx(
        expected_calibration_error([expected.apply(score) for score in scores], rights), abs=1e-3
    )


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *map(str, arguments)])
    return exit_.value.code


def test_the_command_writes_the_calibration(capsys, model_dir, data_dir):
    assert run(model_dir, data_dir, "--calibrate") == 0
    out = capsys.readouterr().out
    [row] = [line.split() for line in out.splitlines() if " ECE " in line and "all" in line]
    assert float(row[2]) > 0
    found = read_calibration(model_dir)
    assert found != Calibration()
    assert f"calibrated: slope {found.slope:.3f}, bias {found.bias:+.3f} by " in out
    assert run(model_dir, data_dir) == 0
    [after] = [line.split() for line in capsys.readouterr().out.splitlines() if " ECE " in line]
    assert float(after[2]) < float(row[2])


def test_what_cannot_be_calibrated_is_one_line(capsys, tmp_path, data_dir):
    assert run("someone/model", data_dir, "--calibrate") == 2
    assert "`model` must be a directory for calibration.json to be written to" in capsys.readouterr().err
    folder = save_classifier(tmp_path / "classifier", ["yes", "no"])
    # Said before any data are read: here there are none.
    assert run(folder, tmp_path / "nowhere", "--calibrate") == 2
    err = capsys.readouterr().err
    assert err.startswith("unispeech: `calibrate` must be left out for a classifier")
    assert err.count("\n") == 1
