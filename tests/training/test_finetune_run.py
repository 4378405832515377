"""Fine-tuning from a recipe: what is learned, what is kept of a model, what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tone_corpus import TINY, write_corpus, write_recipe
from unispeech.checkpoints.huggingface import load_model, save_model
from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError, ManifestError
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.training.finetune import run_finetuning
from unispeech.training.sections import BatchSettings, MaskingSettings, ModelSettings
from unispeech.training.starting_model import make_classifier, make_recogniser
from unispeech.training.state import load_state
from unispeech.training.targets import build_labels, build_vocabulary

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tones")
    return {
        "train": write_corpus(folder / "train", 24),
        "dev": write_corpus(folder / "dev", 8, seed=1),
        "untimed": write_corpus(folder / "untimed", 8, seed=2, with_times=False),
    }


@pytest.fixture(scope="module")
def learned(corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned the tones."""
    folder = tmp_path_factory.mktemp("learned")
    recipe = write_recipe(
        folder / "recipe.yaml",
        corpus["train"],
        corpus["dev"],
        objective={"frame_updates": 40},
        model={"layerdrop": 0.0},
        schedule={"num_updates": 60},
        runtime={"validate_every": 30, "log_every": 10},
    )
    run_finetuning(recipe, folder / "run")
    return folder / "run"


def log(run: Path, key: str) -> list[float]:
    read = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line[key] for line in read if key in line]


def test_tones_are_learned_by_a_frame_level_start_and_then_ctc(learned):
    assert log(learned, "dev/per")[-1] < 0.1
    assert log(learned, "frame_accuracy")[-1] > 0.7
    assert len(log(learned, "loss/frame")) == 4
    assert len(log(learned, "loss/ctc")) == 2
    assert log(learned, "dev/loss/ctc")[-1] < log(learned, "dev/loss/ctc")[0] / 2


def test_a_run_leaves_a_model_that_others_load(learned):
    from transformers import Wav2Vec2Processor

    for name in ("best", "last"):
        model = load_model(learned / name)
        assert isinstance(model, UniSpeechForCTC)
        assert model.config.mask_time_prob == 0.1
        assert Vocabulary.load(learned / name).symbols == ("<pad>", "a", "b", "c", "d")
        assert (learned / name / "training_state" / "recipe.yaml").read_text() == (
            learned / "recipe.yaml"
        ).read_text()
    processor = Wav2Vec2Processor.from_pretrained(learned / "best")
    assert processor.tokenizer.convert_ids_to_tokens([1, 4]) == ["a", "d"]


def test_the_written_recipe_is_complete_and_makes_the_same_run(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"], corpus["dev"])
    run_finetuning(recipe, tmp_path / "run")
    run_finetuning(tmp_path / "run" / "recipe.yaml", tmp_path / "again")
    assert log(tmp_path / "again", "loss") == log(tmp_path / "run", "loss")


def test_a_flat_start_needs_no_times(corpus, tmp_path):
    recipe = write_recipe(
        tmp_path / "recipe.yaml", corpus["untimed"], objective={"frame_updates": 6, "frame_labels": "uniform"}
    )
    run_finetuning(recipe, tmp_path / "run")
    losses = log(tmp_path / "run", "loss/frame")
    assert losses[-1] < losses[0]
    assert not (tmp_path / "run" / "best").exists()


def test_characters_are_judged_by_words(corpus, tmp_path):
    recipe = write_recipe(
        tmp_path / "recipe.yaml", corpus["train"], corpus["dev"], data={"units": "characters"}
    )
    outcome = run_finetuning(recipe, tmp_path / "run")
    assert log(tmp_path / "run", "dev/wer")
    assert log(tmp_path / "run", "dev/cer")
    assert outcome.best == min(log(tmp_path / "run", "dev/wer"))


def test_sets_of_cuts_get_their_shares_of_the_batches(corpus, tmp_path):
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        corpus["train"],
        data={"train": [str(corpus["train"]), str(corpus["untimed"])], "shares": [3, 1]},
        schedule={"num_updates": 8},
        runtime={"log_every": 1},
        augmentation={"speed": [0.9, 1.1], "noise_prob": 0.5},
        objective={"frame_updates": 8},
    )
    run_finetuning(recipe, tmp_path / "run")
    # Only the first set has phone times; a batch of the second has no frame to learn from.
    assert len(log(tmp_path / "run", "loss/frame")) == 6
    assert len(log(tmp_path / "run", "loss")) == 6


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([1], r"`data.shares` must have a share for each of the 2 entries .* but has 1"),
        ([1, 0], r"`data.shares` must be positive, but are \[1, 0\]"),
    ],
)
def test_shares_that_do_not_fit_are_refused(corpus, tmp_path, shares, message):
    two = [str(corpus["train"]), str(corpus["untimed"])]
    recipe = write_recipe(tmp_path / "r.yaml", corpus["train"], data={"train": two, "shares": shares})
    with pytest.raises(ValueError, match=message):
        run_finetuning(recipe, tmp_path / "run")


def test_labels_are_learned(corpus, tmp_path):
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        corpus["train"],
        corpus["dev"],
        data={"units": "label"},
        objective={"task": "classification"},
        schedule={"num_updates": 12},
    )
    outcome = run_finetuning(recipe, tmp_path / "run")
    assert outcome.best == max(log(tmp_path / "run", "dev/accuracy"))
    model = load_model(tmp_path / "run" / "best")
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    # Taken up again with more updates, from the run alone.
    outcome = run_finetuning(None, tmp_path / "run", ["schedule.num_updates=14"], resume=True)
    assert outcome.update == 14


# ---- the model to start from


def pretrained(folder: Path, **config: Any) -> tuple[Path, UniSpeechForPreTraining]:
    torch.manual_seed(3)
    sizes = {
        "num_codevectors_per_group": 4,
        "codevector_dim": 8,
        "proj_codevector_dim": 8,
        "num_ctc_classes": 5,
    }
    model = UniSpeechForPreTraining(UniSpeechConfig(**(TINY | sizes | config)))
    save_model(model, folder)
    return folder, model


VOCABULARY = Vocabulary.build(["a b c d"], kind="phones")


def test_the_encoder_of_a_pretrained_model_is_kept_and_the_head_fresh(tmp_path):
    said: list[str] = []
    folder, source = pretrained(tmp_path / "pretrained")
    model = make_recogniser(
        ModelSettings(init=str(folder), layerdrop=0.25),
        MaskingSettings(time_prob=0.5),
        VOCABULARY,
        said.append,
    )
    for name, weight in source.unispeech.state_dict().items():
        assert torch.equal(weight, model.unispeech.state_dict()[name])
    assert (model.config.layerdrop, model.config.mask_time_prob) == (0.25, 0.5)
    assert model.unispeech.config.mask_time_prob == 0.5
    assert said == [f"{folder}: encoder kept; fresh head for 5 symbols, its own are others"]


def test_a_head_with_the_same_vocabulary_is_kept(tmp_path):
    said: list[str] = []
    folder, source = pretrained(tmp_path / "pretrained")
    VOCABULARY.save(folder)
    model = make_recogniser(ModelSettings(init=str(folder)), MaskingSettings(), VOCABULARY, said.append)
    assert torch.equal(model.lm_head.weight, source.ctc_proj.weight)
    assert said == [f"{folder}: encoder and head kept"]


def test_a_recogniser_starts_another(learned, corpus, tmp_path):
    said: list[str] = []
    settings = ModelSettings(init=str(learned / "best"))
    source = load_model(learned / "best")
    same = make_recogniser(settings, MaskingSettings(), VOCABULARY, said.append)
    assert torch.equal(same.lm_head.weight, source.lm_head.weight)
    other = make_recogniser(
        settings, MaskingSettings(), Vocabulary.build(["a b"], kind="phones"), said.append
    )
    assert other.lm_head.out_features == 3
    assert said[1].endswith("encoder kept; fresh head for 3 symbols, its own are others")
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        corpus["train"],
        corpus["dev"],
        model={"config": None, "init": str(learned / "best")},
        data={"vocabulary": "init"},
        optim={"learning_rate": 1e-6},
        schedule={"num_updates": 1},
    )
    assert run_finetuning(recipe, tmp_path / "run").best < 0.1


def test_a_mask_embedding_that_is_missing_starts_afresh(tmp_path):
    said: list[str] = []
    folder, _ = pretrained(tmp_path / "pretrained", mask_time_prob=0.0)
    model = make_recogniser(
        ModelSettings(init=str(folder)), MaskingSettings(time_prob=0.5), VOCABULARY, said.append
    )
    assert model.unispeech.masked_spec_embed.abs().sum() > 0
    assert said[0] == f"{folder}: fresh mask embedding, it was trained without masks"


def test_classifiers_start_from_anything(tmp_path):
    said: list[str] = []
    folder, _ = pretrained(tmp_path / "pretrained")
    classes = {"no": 0, "yes": 1}
    first = make_classifier(ModelSettings(init=str(folder)), MaskingSettings(), classes, said.append)
    save_model(first, tmp_path / "first")
    settings = ModelSettings(init=str(tmp_path / "first"))
    second = make_classifier(settings, MaskingSettings(), classes, said.append)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    third = make_classifier(settings, MaskingSettings(), {"a": 0, "b": 1, "c": 2}, said.append)
    assert third.classifier.out_features == 3
    recogniser = make_recogniser(settings, MaskingSettings(), VOCABULARY, said.append)
    assert torch.equal(
        recogniser.unispeech.encoder.layer_norm.weight, first.unispeech.encoder.layer_norm.weight
    )
    assert [line.partition(": ")[2] for line in said] == [
        "encoder kept; fresh head for 2 classes",
        "encoder and head kept",
        "encoder kept; fresh head for 3 classes",
        "encoder kept; fresh head for 5 symbols, it has none",
    ]


def test_a_vocabulary_that_does_not_fit_the_head_beside_it_is_refused(tmp_path):
    folder, _ = pretrained(tmp_path / "pretrained", num_ctc_classes=9)
    VOCABULARY.save(folder)
    with pytest.raises(
        CheckpointError,
        match=r"vocabulary must have a symbol for each of the 9 outputs of the head, but has 5",
    ):
        make_recogniser(ModelSettings(init=str(folder)), MaskingSettings(), VOCABULARY, print)


def test_what_the_data_give_is_not_for_the_recipe():
    settings = ModelSettings(config=TINY | {"vocab_size": 7})
    with pytest.raises(ValueError, match=r"`model.config.vocab_size` must be left out: the data give it"):
        make_recogniser(settings, MaskingSettings(), VOCABULARY, print)


def test_an_encoder_of_other_parts_is_refused(tmp_path, monkeypatch):
    folder, _ = pretrained(tmp_path / "pretrained")
    original = UniSpeechForCTC.__init__

    def with_more(self: Any, config: UniSpeechConfig) -> None:
        original(self, config)
        self.unispeech.extra = torch.nn.Parameter(torch.zeros(1))

    monkeypatch.setattr(UniSpeechForCTC, "__init__", with_more)
    with pytest.raises(CheckpointError, match=r"encoder must fit its configuration, but extra does not"):
        make_recogniser(ModelSettings(init=str(folder)), MaskingSettings(), VOCABULARY, print)


# ---- vocabularies and classes


def test_vocabularies_come_from_transcripts_or_directories(corpus, tmp_path):
    def build(units: str = "phones", init: str | None = None, **settings: object) -> Vocabulary:
        return build_vocabulary([str(corpus["train"])], units, BatchSettings(**settings), init)

    assert build().symbols == ("<pad>", "a", "b", "c", "d")
    assert build(tag_languages=True).symbols[1] == "(en)a"
    VOCABULARY.save(tmp_path)
    assert build(vocabulary=str(tmp_path)).symbols == VOCABULARY.symbols
    assert build(vocabulary="init", init=str(tmp_path)).symbols == VOCABULARY.symbols
    with pytest.raises(ValueError, match=r"vocabulary must hold characters, but holds phones"):
        build("characters", vocabulary=str(tmp_path))


def test_cuts_without_anything_to_learn_are_refused(corpus, tmp_path, monkeypatch):
    import unispeech.training.targets as module

    class Nothing:
        custom = None
        text = None
        language = None
        alignment = None

    monkeypatch.setattr(module, "supervisions", lambda cuts: iter([Nothing()]))
    with pytest.raises(
        ManifestError, match=r"x: cuts must have phones, but have none; prepare them with --units phones"
    ):
        build_vocabulary(["x"], "phones", BatchSettings(), None)
    with pytest.raises(ManifestError, match=r"x: cuts must have a label, but have none"):
        build_labels(["x"])


def test_times_that_are_missing_are_asked_for_before_the_start(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["untimed"], objective={"frame_updates": 6})
    with pytest.raises(
        ManifestError, match=r"cuts must have phone times for `objective.frame_updates`, but have none"
    ):
        run_finetuning(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- run directories


def test_a_run_is_not_overwritten(learned, corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"])
    with pytest.raises(
        ValueError, match=r"run: must not hold a run, but holds one; go on by --resume, or name another"
    ):
        run_finetuning(recipe, learned)
    with pytest.raises(ValueError, match=r"recipe.yaml: `.*` must be that of .*, but differs"):
        run_finetuning(recipe, learned, resume=True)
    with pytest.raises(
        ValueError, match=r"--set data.min_seconds=1: a resumption may change optim, schedule, runtime only"
    ):
        run_finetuning(None, learned, ["data.min_seconds=1"], resume=True)


def test_a_resumption_takes_the_recipe_of_the_run(learned):
    before = (learned / "log.jsonl").read_text()
    outcome = run_finetuning(learned / "recipe.yaml", learned, resume=True)
    assert (outcome.update, outcome.signal) == (60, 0)
    assert (learned / "log.jsonl").read_text() == before


def test_a_run_that_was_ended_before_its_first_checkpoint_starts_again(corpus, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"], schedule={"num_updates": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(recipe.read_text())
    assert run_finetuning(None, tmp_path / "run", resume=True).update == 1


def test_compiling_needs_a_compiler(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"])
    with pytest.raises(ValueError, match=r"`runtime.compile` must be false .* no-such-compiler is not there"):
        run_finetuning(recipe, tmp_path / "run", ["runtime.compile=true"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("runtime.accumulate=2", r"processes times `runtime.accumulate` must be 1 as in the checkpoint"),
        (
            "runtime.seed=7",
            r"run: training data and `runtime.seed` must be those of the checkpoint, but",
        ),
    ],
)
def test_a_refused_resumption_leaves_the_run_as_it_was(corpus, tmp_path, change, message):
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"], schedule={"num_updates": 2})
    run_finetuning(recipe, tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        run_finetuning(None, tmp_path / "run", [change], resume=True)
    assert run_finetuning(None, tmp_path / "run", ["schedule.num_updates=3"], resume=True).update == 3


def test_a_directory_is_trained_by_one_run_at_a_time(corpus, tmp_path):
    recipe, run = write_recipe(tmp_path / "recipe.yaml", corpus["train"]), tmp_path / "run"
    run_finetuning(recipe, run, ["schedule.num_updates=2"])
    before = (run / "recipe.yaml").read_text()
    holder = (
        f"from unispeech.training.run import lock_run as f; x = f(__import__('pathlib').Path({str(run)!r}))"
    )
    wait = "; print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"run: must be trained by one run at a time, but another"):
            run_finetuning(None, run, ["schedule.num_updates=3"], resume=True)
        assert (run / "recipe.yaml").read_text() == before
        other.kill()
    assert run_finetuning(None, run, ["schedule.num_updates=3"], resume=True).update == 3


def test_a_resumption_puts_a_checkpoint_into_its_place(corpus, tmp_path):
    """The kill came between the two renames of `best`, and no later value is better."""
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus["train"], corpus["dev"])
    run = tmp_path / "run"
    run_finetuning(recipe, run, ["schedule.num_updates=3"])
    shutil.rmtree(run / "last")
    (run / "best").rename(run / "best.new")
    run_finetuning(None, run, ["optim.learning_rate=1e-30", "schedule.num_updates=4"], resume=True)
    assert load_state(run / "best").update == 3
    assert not (run / "best.new").exists()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", r"file: must be a folder for the run, but is a file; name another"),
        ("file/run", r"file/run: must be a folder for the run, but .*file is a file; name another"),
    ],
)
def test_a_file_where_the_run_belongs_is_refused_before_anything_is_read(tmp_path, place, message):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=message):
        run_finetuning(tmp_path / "no-recipe.yaml", tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("run", r"run: must be a folder that can be written to, but is not; change its permissions or"),
        ("run/b", r"run/b: must be a folder that can be written to, but .*run is not; change its"),
    ],
)
def test_an_unwritable_place_is_refused_before_anything_is_read(tmp_path, monkeypatch, place, message):
    (tmp_path / "run").mkdir(mode=0o555)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).stat().st_mode & 0o200)  # root may all
    with pytest.raises(PermissionError, match=message):
        run_finetuning(tmp_path / "no-recipe.yaml", tmp_path / place)


def test_nothing_to_resume_and_nothing_to_start(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold a run to resume, but has no recipe.yaml"):
        run_finetuning(None, tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"`RECIPE` must be given for a new run, but is missing"):
        run_finetuning(None, tmp_path)
