"""Every recipe that the project carries can be read, and its model can be built."""

from pathlib import Path

import pytest

from unispeech.configuration import LARGE, UniSpeechConfig
from unispeech.training.recipe import FinetuneRecipe, PretrainRecipe, load_recipe
from unispeech.training.schedules import learning_rate

RECIPES = {path.stem: path for path in (Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml")}
PRETRAINING = {
    "pretrain-large-en",
    "pretrain-large-multilingual",
    "continue-large",
    "pretrain-small",
    "continue-small",
    "mixed-small",
}


def command_of(name):
    return "pretrain" if name in PRETRAINING else "finetune"


def test_all_recipes_are_found():
    assert set(RECIPES) >= PRETRAINING | {"english-small", "finetune-1h"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_loads(name):
    path = RECIPES[name]
    recipe = load_recipe(PretrainRecipe if name in PRETRAINING else FinetuneRecipe, path)
    text = path.read_text(encoding="utf-8")
    assert f"unispeech {command_of(name)} recipes/{path.name} -o runs/" in text, (
        "the command stands at the top"
    )
    assert text.isascii()
    if recipe.model.config is not None:
        config = UniSpeechConfig(**recipe.model.config)
        assert config.hidden_size % config.num_attention_heads == 0
        assert config.hidden_size % config.num_conv_pos_embedding_groups == 0


def rates(recipe, *updates):
    return [learning_rate(recipe.schedule, recipe.optim.learning_rate, update) for update in updates]


def masks(recipe):
    return recipe.masking.config_fields()


def test_fine_tuning_follows_the_paper():
    """Settings of the original's script: 2e-5, 2k / 8k / 10k updates, masks .75 and .25."""
    recipe = load_recipe(FinetuneRecipe, RECIPES["finetune-1h"])
    assert rates(recipe, 0, 2000, 9999, 20000) == pytest.approx([2e-7, 2e-5, 2e-5, 1e-6])
    assert masks(recipe) == {
        "mask_time_prob": 0.75,
        "mask_time_length": 10,
        "mask_feature_prob": 0.25,
        "mask_feature_length": 64,
    }
    assert (recipe.optim.freeze_encoder_updates, recipe.optim.freeze_convolutions) == (2000, True)
    assert recipe.objective.normaliser == "utterances"


@pytest.mark.parametrize("name", ["pretrain-large-en", "pretrain-large-multilingual"])
def test_stage_one_follows_the_paper(name):
    """Settings of the original's scripts: 1e-3, 25k of warm-up, to 0 at 200k, 75 s on each of 64 GPUs."""
    recipe = load_recipe(PretrainRecipe, RECIPES[name])
    assert dict(recipe.model.config) == LARGE
    assert rates(recipe, 0, 25_000, 112_500, 200_000) == pytest.approx([0, 1e-3, 5e-4, 0])
    assert masks(recipe) == {"mask_time_prob": 0.5, "mask_time_length": 10}
    objective, data = recipe.objective, recipe.data
    assert (objective.ctc_weight, objective.replace_prob, objective.negatives_from) == (0.5, 0.5, "all")
    assert (objective.diversity_weight, objective.num_negatives, objective.feature_grad_mult) == (
        0.1,
        100,
        1.0,
    )
    assert (data.batch_seconds, data.min_seconds, data.max_seconds) == (75, 2, 20)
    assert (recipe.optim.eps, recipe.optim.weight_decay, recipe.optim.max_grad_norm) == (1e-6, 0.01, 25)
    is_multilingual = name.endswith("multilingual")
    assert (data.language_exponent, data.tag_languages) == ((0.5, True) if is_multilingual else (None, False))


def test_stage_two_follows_the_paper():
    """Settings of the original's script: 2e-4, 10k of warm-up, to 0 at 100k, 2 x 62.5 s on each of 8 GPUs."""
    recipe = load_recipe(PretrainRecipe, RECIPES["continue-large"])
    assert rates(recipe, 0, 10_000, 100_000) == pytest.approx([0, 2e-4, 0])
    assert masks(recipe) == {"mask_time_prob": 0.65, "mask_time_length": 10}
    assert (recipe.objective.negatives_from, recipe.objective.feature_grad_mult) == ("masked", 0.1)
    assert (recipe.data.batch_seconds, recipe.data.max_seconds) == (62.5, 15.625)
    assert (recipe.runtime.accumulate, recipe.model.layerdrop) == (2, 0.05)
