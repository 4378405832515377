"""The steps of the whole comparison, in the order in which they are worth having."""

import dataclasses
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from experiments import recipes
from experiments.settings import Settings
from experiments.steps import Kind, Role, Step

MODEL = "run/last"
"""Where a training leaves its model, below its directory."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Stage 1 with other settings than those of the comparison."""

    ctc_weight: float = 0.5
    """Weight of CTC."""
    replace_prob: float = 0.5
    """Replacement probability."""
    time_prob: float | None = None
    """Share of frames that the masks would cover if none overlapped; None: that of the settings."""

    @property
    def name(self) -> str:
        """Name of the system; uni1 for the settings of the comparison."""
        is_weighted = (self.ctc_weight, self.replace_prob) != (0.5, 0.5)
        weights = f"-w{self.ctc_weight:g}-r{self.replace_prob:g}" if is_weighted else ""
        return f"uni1{weights}" + ("" if self.time_prob is None else f"-m{self.time_prob:g}")


COMPARED = Variant()
"""Stage 1 as it is compared with the other systems."""

LIGHT = Variant(ctc_weight=0.75, replace_prob=0.0, time_prob=0.1)
"""Stage 1 that hears as much as transfer, with a little contrast: what the ablation found best."""

SYSTEMS = ("scratch", "ssl", "ctc", "uni1", LIGHT.name, "uni12", "mixed")
"""From scratch; contrast alone; CTC on the source; stage 1 as in the paper, and lighter; stages 1 and 2; both
streams in one run."""

CTC_ALONE = Variant(ctc_weight=1.0)
"""Stage 1 without contrast."""

MASKS_ALONE = Variant(ctc_weight=1.0, replace_prob=0.0)
"""The control: transfer behind the masks of stage 1."""


def make_plan(settings: Settings) -> list[Step]:
    """All steps; each stands behind what it needs.

    The first seed comes first: the targets one by one with all systems, then the ablations; then the other
    seeds, without ablations.

    Args:
        settings: The size.

    Returns:
        The steps, every one once.
    """
    plan = _Plan(settings)
    steps: dict[str, Step] = {}
    for step in plan.steps():
        for needed in _with_parents(step):
            steps.setdefault(needed.label, needed)
    return list(steps.values())


def ablations(settings: Settings) -> dict[str, dict[str, Variant]]:
    """The variants of stage 1 that are tried.

    Args:
        settings: The size.

    Returns:
        What is varied -> its values as they are shown, with the variant of each.
    """
    design = settings.design
    masks = {f"{prob:g}": Variant(time_prob=prob) for prob in design.mask_probs}
    return {
        "weight of CTC (replacement 0.5)": {
            f"{weight:g}": Variant(ctc_weight=weight) for weight in design.ctc_weights
        },
        "replacement probability (weight 0.5)": {
            f"{prob:g}": Variant(replace_prob=prob) for prob in design.replace_probs
        },
        "masks (weight 0.5, replacement 0.5)": masks | {f"{settings.masking.time_prob:g}": COMPARED},
        "control": {"weight 1, replacement 0: masks alone": MASKS_ALONE},
        f"weight of CTC (replacement 0, masks {LIGHT.time_prob:g})": {
            f"{weight:g}": dataclasses.replace(LIGHT, ctc_weight=weight) for weight in (0.75, 0.9)
        },
    }


def _with_parents(step: Step) -> Iterator[Step]:
    for parent in step.parents:
        yield from _with_parents(parent)
    yield step


class _Plan:
    """Builds steps from the settings.

    Args:
        settings: The size.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.source = self._synthetic(settings.corpora.source, settings.corpora.source_hours)

    def steps(self) -> Iterator[Step]:
        """The scores, in their order.

        Yields:
            Steps whose parents are the rest.
        """
        design = self.settings.design
        targets = self._targets()
        for place, seed in enumerate(design.seeds):
            for target in targets:
                for system in SYSTEMS:
                    yield self._score(target, system, seed, LIGHT if system == LIGHT.name else COMPARED)
            if place == 0:
                target = self._synthetic(design.ablation_target, self.settings.corpora.target_hours)
                for variants in ablations(self.settings).values():
                    yield from (self._score(target, one.name, seed, one) for one in variants.values())

    def _targets(self) -> list[Step]:
        """First one of each kind, so that early pieces show something of everything."""
        corpora = self.settings.corpora
        synthetic = [self._synthetic(language, corpora.target_hours) for language in corpora.synthetic]
        real = [self._real(language) for language in corpora.real]
        shift = [self._shift()] if corpora.shift else []
        return [*synthetic[:1], *shift, *real[:1], *synthetic[1:], *real[1:]]

    # ---- corpora

    def _synthetic(self, language: str, hours: float) -> Step:
        return self._corpus(language, {"origin": "synthetic", "language": language, "hours": hours})

    def _shift(self) -> Step:
        corpora = self.settings.corpora
        spec = {"origin": "synthetic", "language": corpora.source, "hours": corpora.target_hours}
        spec |= {"rate_range": list(corpora.shift_rate_range), "noise_snr_db": list(corpora.shift_snr_db)}
        return self._corpus(f"{corpora.source}-shift", spec | {"noise_prob": 1.0, "telephone": True})

    def _real(self, language: str) -> Step:
        return self._corpus(f"{language}-real", {"origin": "real", "language": language})

    def _corpus(self, name: str, spec: dict[str, Any]) -> Step:
        corpora = asdict(self.settings.corpora)
        shared = ["labelled_minutes", "valid_minutes", "test_minutes"]
        if spec["origin"] == "synthetic":
            shared += ["words", "rate_range", "noise_snr_db"]
        inputs = {key: corpora[key] for key in shared} | spec
        seconds = 3600 * float(spec.get("hours", 1.0)) + 60 * corpora["test_minutes"]
        return Step(name=name, kind="corpus", inputs=inputs, audio_seconds=seconds)

    # ---- trainings

    def _pretrained(self, target: Step, system: str, seed: int, variant: Variant) -> Step | None:
        """The training before fine-tuning; those on the source alone are shared by all targets."""
        settings, source = self.settings, self.source
        total = settings.pretraining.updates
        if system == "scratch":
            return None
        if system == "ctc":
            recipe = recipes.transfer(settings, source=source.name, seed=seed)
            return self._training("finetune", source, "ctc", seed, recipe, [source])
        if system == "ssl":
            both = [source.name, target.name]
            recipe = recipes.pretraining(settings, labelled=None, unlabelled=both, seed=seed)
            return self._training("pretrain", target, "ssl", seed, recipe, [source, target])
        if system == "mixed":
            recipe = recipes.pretraining(settings, labelled=source.name, unlabelled=[target.name], seed=seed)
            return self._training("pretrain", target, "mixed", seed, recipe, [source, target])
        if system == "uni12":
            first = round(total * settings.design.stage1_share)
            recipe = recipes.pretraining(
                settings, labelled=source.name, unlabelled=[], seed=seed, updates=first
            )
            stage1 = self._training("pretrain", source, "stage1", seed, recipe, [source])
            recipe = recipes.pretraining(
                settings,
                labelled=None,
                unlabelled=[target.name],
                seed=seed,
                updates=total - first,
                init=f"@{stage1.name}/{MODEL}",
            )
            return self._training("pretrain", target, "uni12", seed, recipe, [stage1, target])
        recipe = recipes.pretraining(
            settings,
            labelled=source.name,
            unlabelled=[],
            seed=seed,
            ctc_weight=variant.ctc_weight,
            replace_prob=variant.replace_prob,
            time_prob=variant.time_prob,
        )
        return self._training("pretrain", source, system, seed, recipe, [source])

    def _score(self, target: Step, system: str, seed: int, variant: Variant = COMPARED) -> Step:
        """Fine-tuning on the target and its score."""
        pretrained = self._pretrained(target, system, seed, variant)
        is_shift = bool(target.inputs.get("telephone"))
        # Across domains of one language all of its clean transcripts are learned; elsewhere the few minutes.
        labelled = self.source if is_shift else target
        recipe = recipes.finetuning(
            self.settings,
            labelled=labelled.name,
            labelled_part="train" if is_shift else "labelled",
            target=target.name,
            init=None if pretrained is None else f"@{pretrained.name}/{MODEL}",
            seed=seed,
            has_times=target.inputs["origin"] == "synthetic",
        )
        parents = [labelled, target] if is_shift else [target]
        parents += [pretrained] if pretrained else []
        tuned = self._training("finetune", target, f"{system}-tuned", seed, recipe, parents)
        role = Role(target=target.name, system=system, seed=seed)
        return Step(
            name=f"{target.name}-{seed}-{system}-score",
            kind="score",
            inputs={"model": f"@{tuned.name}/{MODEL}", "test": f"@{target.name}/test"},
            parents=(tuned, target),
            audio_seconds=60 * self.settings.corpora.test_minutes,
            role=role,
        )

    def _training(
        self, kind: Kind, target: Step, system: str, seed: int, recipe: recipes.Recipe, parents: list[Step]
    ) -> Step:
        updates, seconds = recipe["schedule"]["num_updates"], recipe["data"]["batch_seconds"]
        return Step(
            name=f"{target.name}-{seed}-{system}",
            kind=kind,
            inputs={"recipe": recipe},
            parents=tuple(parents),
            audio_seconds=float(updates * seconds),
            role=Role(target=target.name, system=system, seed=seed),
        )
