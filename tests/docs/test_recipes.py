"""Every recipe that the project carries can be read, and its model can be built."""

from pathlib import Path

import pytest

from unispeech.configuration import UniSpeechConfig
from unispeech.training.recipe import load_recipe
from unispeech.training.schedules import learning_rate

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
FINETUNING = ["english-small", "finetune-1h", "fsdd-keywords", "kerstin-phones", "speechocean-phones"]


def test_all_recipes_are_found():
    assert [path.stem for path in RECIPES] == FINETUNING


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    recipe = load_recipe(path)
    text = path.read_text(encoding="utf-8")
    assert f"unispeech finetune recipes/{path.name} -o runs/" in text, "the command stands at the top"
    assert text.isascii()
    if recipe.model.config is not None:
        config = UniSpeechConfig(**recipe.model.config)
        assert config.hidden_size % config.num_attention_heads == 0
        assert config.hidden_size % config.num_conv_pos_embedding_groups == 0


def test_the_paper_is_followed_where_it_is_claimed():
    """Fine-tuning settings of the original's script: 2e-5, 2k / 8k / 10k updates, masks .75 and .25."""
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "finetune-1h"))
    rates = [
        learning_rate(recipe.schedule, recipe.optim.learning_rate, update)
        for update in (0, 2000, 9999, 20000)
    ]
    assert rates == pytest.approx([2e-7, 2e-5, 2e-5, 1e-6])
    assert recipe.masking.config_fields() == {
        "mask_time_prob": 0.75,
        "mask_time_length": 10,
        "mask_feature_prob": 0.25,
        "mask_feature_length": 64,
    }
    assert (recipe.optim.freeze_encoder_updates, recipe.optim.freeze_convolutions) == (2000, True)
    assert recipe.objective.normaliser == "utterances"
