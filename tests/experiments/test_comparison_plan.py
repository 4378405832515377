"""The plan of the comparison: what follows what, what is shared, what the keys depend on."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments import cli
from experiments.cost import expected_seconds
from experiments.plan import COMPARED, LIGHT, MASKS_ALONE, SYSTEMS, Variant, ablations, make_plan
from experiments.results import Results
from experiments.settings import FOLDER, load
from experiments.steps import Step
from unispeech.training.recipe import FinetuneRecipe, PretrainRecipe, load_recipe

SIZES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def scores(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.kind == "score"]


def test_there_are_sizes() -> None:
    assert {"tiny", "base", "smoke"} <= set(SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_every_step_stands_once_and_behind_what_it_needs(size: str) -> None:
    steps = make_plan(load(size))
    assert len({step.name for step in steps}) == len({step.label for step in steps}) == len(steps)
    seen: set[str] = set()
    for step in steps:
        assert all(parent.label in seen for parent in step.parents), step.name
        seen.add(step.label)


@pytest.mark.parametrize("size", SIZES)
def test_every_recipe_can_be_read(size: str, tmp_path: Path) -> None:
    num_read = 0
    for step in make_plan(load(size)):
        if step.kind in {"pretrain", "finetune"}:
            path = tmp_path / "recipe.yaml"
            path.write_text(yaml.safe_dump(step.resolved(tmp_path)["recipe"]))
            load_recipe(PretrainRecipe if step.kind == "pretrain" else FinetuneRecipe, path)
            num_read += 1
    assert num_read > 10


def test_the_first_target_is_complete_first_and_the_first_seed_before_the_second() -> None:
    settings = load("tiny")
    roles = [step.role for step in scores(make_plan(settings))]
    assert [(role.target, role.system, role.seed) for role in roles[: len(SYSTEMS)]] == [
        ("es", system, 0) for system in SYSTEMS
    ]
    seeds = [role.seed for role in roles]
    assert seeds == sorted(seeds)
    num_targets = len(settings.corpora.synthetic) + len(settings.corpora.real) + 1
    assert len(roles) == 3 * len(SYSTEMS) * num_targets + len(variants(settings) - {COMPARED, LIGHT})


def test_trainings_on_the_source_are_shared_by_targets_and_by_the_ablation() -> None:
    steps = make_plan(load("tiny"))
    for system in ("ctc", "uni1", "stage1"):
        assert sum(step.name == f"en-0-{system}" for step in steps) == 1
    users = [step for step in steps if any(parent.name == "en-0-uni1" for parent in step.parents)]
    assert len(users) == 9  # targets of seed 0; the ablation takes one of them


def test_updates_before_fine_tuning_are_equal() -> None:
    settings = load("tiny")
    by_name = {step.name: step for step in make_plan(settings)}

    def updates(name: str) -> int:
        return by_name[name].inputs["recipe"]["schedule"]["num_updates"]  # type: ignore[index, no-any-return]

    total = settings.pretraining.updates
    assert [updates(name) for name in ("en-0-ctc", "en-0-uni1", "es-0-ssl", "es-0-mixed")] == [total] * 4
    assert updates("en-0-stage1") + updates("es-0-uni12") == total
    assert len({updates(f"es-0-{system}-tuned") for system in SYSTEMS}) == 1


def test_the_temperature_of_a_shorter_run_ends_where_that_of_the_longer_does() -> None:
    settings = load("tiny")
    by_name = {step.name: step for step in make_plan(settings)}
    ends = []
    for name in ("en-0-uni1", "en-0-stage1", "es-0-uni12"):
        recipe = by_name[name].inputs["recipe"]
        decay, updates = recipe["objective"]["temperature_decay"], recipe["schedule"]["num_updates"]  # type: ignore[index]
        ends.append(decay**updates)
    assert ends == pytest.approx([ends[0]] * 3, rel=1e-3)


def test_a_key_follows_from_all_that_goes_in() -> None:
    settings = load("tiny")
    keys = {step.name: step.key for step in make_plan(settings)}
    again = {step.name: step.key for step in make_plan(load("tiny"))}
    assert keys == again
    longer = replace(settings, pretraining=replace(settings.pretraining, updates=801))
    changed = {step.name: step.key for step in make_plan(longer)}
    assert {name for name in keys if keys[name] == changed[name]} == {
        name for name in keys if "scratch" in name or not any(c.isdigit() for c in name)
    }
    other = replace(settings, corpora=replace(settings.corpora, target_hours=2.0))
    changed = {step.name: step.key for step in make_plan(other)}
    assert keys["en"] == changed["en"]
    assert keys["en-0-uni1"] == changed["en-0-uni1"]
    assert keys["es-0-uni1-tuned"] != changed["es-0-uni1-tuned"]
    assert keys["es-0-uni1-score"] != changed["es-0-uni1-score"]


def test_places_of_parents_are_put_in_at_any_depth() -> None:
    parent = Step(name="en", kind="corpus", inputs={})
    step = Step(name="x", kind="score", inputs={"a": ["@en/train", {"b": "@en"}], "c": 1}, parents=(parent,))
    place = f"work/{parent.label}"
    assert step.resolved(Path("work")) == {"a": [f"{place}/train", {"b": place}], "c": 1}


def variants(settings) -> set[Variant]:
    return {variant for row in ablations(settings).values() for variant in row.values()}


def test_names_of_ablations() -> None:
    assert COMPARED.name == "uni1"
    assert Variant(ctc_weight=0.25).name == "uni1-w0.25-r0.5"
    assert Variant(time_prob=0.1).name == "uni1-m0.1"
    assert MASKS_ALONE.name == "uni1-w1-r0"
    assert len(variants(load("tiny"))) == 13


def test_a_little_contrast_is_tried_behind_the_masks_of_transfer() -> None:
    plan = {step.name: step.inputs["recipe"] for step in make_plan(load("tiny")) if "recipe" in step.inputs}
    little, transfer = plan["en-0-uni1-w0.75-r0-m0.1"], plan["en-0-ctc"]
    assert little["masking"]["time_prob"] == transfer["masking"]["time_prob"] == 0.1
    assert (little["objective"]["ctc_weight"], little["objective"]["replace_prob"]) == (0.75, 0.0)


def test_a_variant_changes_its_own_setting_alone() -> None:
    settings = load("tiny")
    plan = {step.name: step for step in make_plan(settings)}
    main, light = (plan[f"en-0-{name}"].inputs["recipe"] for name in ("uni1", "uni1-m0.1"))
    assert light["masking"]["time_prob"] == 0.1 != main["masking"]["time_prob"]
    assert light | {"masking": main["masking"]} == main


def test_selection_takes_what_is_needed_and_no_more() -> None:
    steps = make_plan(load("tiny"))
    chosen = cli.select(steps, ["es-0-uni12"])
    assert [step.name for step in chosen] == [
        "es", "en", "en-0-stage1", "es-0-uni12", "es-0-uni12-tuned", "es-0-uni12-score"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`--only` must match a score, but is 'xx'; there are es-0-scratch"):
        cli.select(steps, ["xx"])


def test_cost_is_measured_or_follows_from_speed() -> None:
    steps = [
        Step(name=name, kind="pretrain", inputs={"n": name}, audio_seconds=1000.0) for name in ("a", "b")
    ]
    results = Results(outcomes={steps[0].key: {"name": "a", "seconds": 20.0, "result": {}}})
    assert expected_seconds(steps, results) == {steps[0].label: (20.0, True), steps[1].label: (20.0, False)}
    results.outcomes[steps[0].key]["cpu_seconds"] = 5.0
    assert expected_seconds(steps, results) == {steps[0].label: (20.0, True), steps[1].label: (5.0, False)}


def test_a_size_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--size", "huge"])
    assert end.value.code == 2
    assert "huge: no such recipe" in capsys.readouterr().err
