"""Recipe files: what is read, what is refused and how, and that a dump reads back."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispeech.training.recipe import DataSettings, FinetuneRecipe, PretrainRecipe, load_recipe
from unispeech.training.sections import MaskingSettings, ModelSettings, OptimSettings
from unispeech.training.settings import dump_settings, first_difference

MINIMAL = "model:\n  init: some-model\ndata:\n  train: cuts.jsonl.gz\n"  # 4 lines


def load(tmp_path: Path, text: str, *overrides: str) -> FinetuneRecipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(FinetuneRecipe, path, overrides)


def test_defaults_fill_what_the_file_leaves_out(tmp_path):
    recipe = load(tmp_path, MINIMAL + "masking:\noptim: {learning_rate: 1e-3}\n")
    assert recipe.optim == OptimSettings(learning_rate=1e-3)
    assert recipe.masking == MaskingSettings()
    assert recipe.data.train == (str(Path.cwd() / "cuts.jsonl.gz"),)
    assert recipe.model.init == str(Path.cwd() / "some-model")


def test_overrides_win_and_the_last_of_them_most(tmp_path):
    recipe = load(
        tmp_path,
        MINIMAL,
        "optim.betas=[0.8, 0.9]",
        "runtime.seed=3",
        "runtime.seed=4",
        "data.dev=a",
        "data.min_seconds=0",
    )
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.runtime.seed == 4
    assert recipe.data.dev == (str(Path.cwd() / "a"),)


def test_fields_of_the_model_are_set_one_by_one(tmp_path):
    text = "model:\n  config:\n    hidden_size: 24\n    num_attention_heads: 4\ndata: {train: [a, b]}\n"
    recipe = load(
        tmp_path, text, "model.config.num_conv_pos_embedding_groups=4", "model.config.layer_norm_eps=1e-6"
    )
    assert recipe.model.config == {
        "hidden_size": 24,
        "num_attention_heads": 4,
        "num_conv_pos_embedding_groups": 4,
        "layer_norm_eps": 1e-6,
    }


def test_a_dump_reads_back(tmp_path):
    recipe = load(tmp_path, MINIMAL, "optim.eps=1e-8", "data.dev=[x, y]", "data.vocabulary=voc")
    assert load(tmp_path, dump_settings(recipe)) == recipe


@settings(max_examples=25)
@given(st.floats(1e-12, 1), st.integers(0, 10**6), st.text("ab c:#'\"\u0259", min_size=1).filter(str.strip))
def test_any_value_survives_a_dump(tmp_path_factory, rate, seed, name):
    tmp_path = tmp_path_factory.mktemp("dump")
    recipe = FinetuneRecipe(
        model=ModelSettings(init="/m"),
        data=DataSettings(train=("/" + name,)),
        optim=OptimSettings(learning_rate=rate),
    )
    assert load(tmp_path, dump_settings(recipe)) == recipe


def test_first_difference_names_the_key(tmp_path):
    recipe = load(tmp_path, MINIMAL)
    assert first_difference(recipe, load(tmp_path, MINIMAL)) is None
    assert (
        first_difference(recipe, load(tmp_path, MINIMAL, "optim.eps=1e-3", "runtime.seed=9")) == "optim.eps"
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "optim:\n  learing_rate: 1\n",
            6,
            r"unknown key `optim.learing_rate`; did you mean `optim.learning_rate`\?$",
        ),
        ("optm: {}\n", 5, r"unknown key `optm`; did you mean `optim`\?$"),
        ("zzzz: 1\n", 5, r"unknown key `zzzz`; the keys here are version, model, data"),
        ("optim:\n  learning_rate: -1e-3\n", 6, r"`optim.learning_rate` must be positive, but is -0.001.$"),
        ("optim: {eps: .nan}\n", 5, r"`optim.eps` must be positive, but is nan.$"),
        ("optim: {weight_decay: -1}\n", 5, r"`optim.weight_decay` must be 0 or more, but is -1.$"),
        ("masking: {time_prob: 1.4}\n", 5, r"`masking.time_prob` must lie in \[0, 1\], but is 1.4.$"),
        ("optim:\n  learning_rate: fast\n", 6, r"`optim.learning_rate` must be a number, but is 'fast'.$"),
        ("optim: {max_grad_norm: x}\n", 5, r"`optim.max_grad_norm` must be a number or null, but is 'x'.$"),
        ("optim: {betas: [1, 2, 3]}\n", 5, r"`optim.betas` must be a list of 2 values, but is"),
        ("optim: {betas: [0.9, 1]}\n", 5, r"`optim.betas` must each lie in \[0, 1\), but are \[0.9, 1\]"),
        ("runtime: {seed: true}\n", 5, r"`runtime.seed` must be a whole number, but is True.$"),
        (
            "schedule: {num_updates: 1e3}\n",
            5,
            r"`schedule.num_updates` must be a whole number, but is 1000.0",
        ),
        ("schedule: {kind: cosine}\n", 5, r"`schedule.kind` must be one of tri-stage, polynomial, constant"),
        ("schedule: {final_factor: 0}\n", 5, r"`schedule.final_factor` must be positive for tri-stage"),
        ("schedule: {warmup_fraction: 0.8}\n", 5, r"`schedule.warmup_fraction` \(0.8\) and"),
        ("objective: {task: classification}\n", 5, r"`data.units` \(phones\) must fit `objective.task`"),
        ("optim: 3\n", 5, r"`optim` must be a mapping of keys to values, but is '3'"),
        ("optim: [3]\n", 5, r"`optim` must be a mapping of keys to values, but is a list"),
        ("runtime:\n  seed: 1\n  seed: 2\n", 7, r"`runtime.seed` must stand once, but stands twice.$"),
        ("runtime:\n  seed: !!python/name:os.system x\n", 6, r"`runtime.seed` must be a plain value"),
        ("version: 2\n", 5, r"`version` must be 1, but is 2"),
        ("optim: [\n", 6, r"must be YAML, but"),
        ("a: \x00", 1, r"must be a YAML text file"),
    ],
)
def test_a_wrong_file_is_refused_by_line(tmp_path, text, line, message):
    with pytest.raises(ValueError, match=f"recipe.yaml:{line}: {message}") as raised:
        load(tmp_path, MINIMAL + text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "hiden_size: 3",
            3,
            r"unknown key `model.config.hiden_size`; did you mean `model.config.hidden_size`\?$",
        ),
        ("zzz: 3", 3, r"unknown key `model.config.zzz`; it is no field of UniSpeechConfig"),
        ("layerdrop: 1.5", 3, r"`model.config.layerdrop` must lie in \[0, 1\], but is 1.5"),
        ("conv_dim: [3]", 3, r"`model.config` must fit: `conv_dim`, .* must have equal lengths"),
    ],
)
def test_a_wrong_field_of_the_model_is_refused_by_line(tmp_path, text, line, message):
    with pytest.raises(ValueError, match=f"recipe.yaml:{line}: {message}"):
        load(tmp_path, f"model:\n  config:\n    {text}\ndata: {{train: a}}\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learing_rate=3", r"unknown key .* did you mean `optim.learning_rate`\?$"),
        ("optim", r"must have the form section.key=value"),
        ("optim=3", r"`optim` is a section; name a key in it: learning_rate, betas"),
        ("optim.eps.x=3", r"unknown key `optim.eps.x`; `optim.eps` holds a value, not keys"),
        ("optim.eps=[", r"the value must be YAML"),
        ("optim.eps=-2", r"`optim.eps` must be positive, but is -2"),
        ("optim.eps=", r"`optim.eps` must be a number, but is None"),
        ("model.config={}", r"exactly one of `model.init` and `model.config` must be given, but both are"),
        ("model.config.hiden_size=1", r"unknown key `model.config.hiden_size`"),
        ("data.train=[]", r"`data.train` must name at least one set of cuts, but is empty"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path, override, message):
    with pytest.raises(ValueError, match=f"^--set {re.escape(override)}: {message}"):
        load(tmp_path, MINIMAL, override)


def test_a_recipe_of_another_version_is_told_before_its_keys(tmp_path):
    with pytest.raises(ValueError, match=r"recipe.yaml:6: `version` must be 1, but is 2; this recipe has"):
        load(tmp_path, MINIMAL + "losses: {}\nversion: 2\n")


@pytest.mark.parametrize(
    ("schema", "data", "message"),
    [
        (PretrainRecipe, "train: a", "be a recipe of unispeech pretrain, but `data.train` belongs to one"),
        (
            FinetuneRecipe,
            "labelled: a",
            "be a recipe of unispeech finetune, but `data.labelled` belongs",
        ),
        (FinetuneRecipe, "unlabelled: a", "`data.unlabelled` belongs to one of unispeech pretrain; use that"),
    ],
)
def test_a_recipe_of_the_other_verb_is_told_as_such(tmp_path, schema, data, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"health: {{}}\nmodel:\n  init: a\ndata:\n  {data}\n")
    with pytest.raises(ValueError, match=rf"recipe.yaml:5: must .*{message}"):
        load_recipe(schema, path)


def test_relations_name_the_line_of_the_last_key(tmp_path):
    with pytest.raises(ValueError, match=r"recipe.yaml:6: `data.min_seconds` \(9\) must not exceed"):
        load(tmp_path, MINIMAL + "  min_seconds: 9\n  max_seconds: 8\n")
    with pytest.raises(
        ValueError,
        match=r"--set data.min_seconds=9: `data.min_seconds` \(9\) must not exceed `data.max_seconds` \(8\)",
    ):
        load(tmp_path, MINIMAL + "  max_seconds: 8\n", "data.min_seconds=9")


def test_what_must_be_given_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"recipe.yaml: `data.train` must be given, but is missing"):
        load(tmp_path, "model: {init: a}\n")
    with pytest.raises(ValueError, match=r"exactly one of .* must be given, but neither is"):
        load(tmp_path, "data: {train: a}\n")


def test_a_vocabulary_of_no_model_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"recipe.yaml:4: `data.vocabulary` must not be init without `model.init`"
    ):
        load(tmp_path, "model:\n  config: {}\ndata:\n  vocabulary: init\n  train: a\n")


def test_frame_updates_belong_to_ctc(tmp_path):
    text = MINIMAL + "  units: label\nobjective:\n  task: classification\n  frame_updates: 3\n"
    with pytest.raises(
        ValueError, match=r"recipe.yaml:8: `objective.frame_updates` must be 0 for classification"
    ):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.yaml: no such recipe"):
        load_recipe(FinetuneRecipe, tmp_path / "none.yaml")


def test_settings_made_in_python_are_checked_too():
    with pytest.raises(ValueError, match=r"`optim.eps` must be positive, but is 0"):
        OptimSettings(eps=0.0)
    with pytest.raises(TypeError, match=r"`optim.eps` must be a number, but is 'small'"):
        OptimSettings(eps="small")
