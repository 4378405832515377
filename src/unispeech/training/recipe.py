"""What a run is made of: the settings of a recipe, section by section.

A recipe is a YAML file with the sections below, every key optional unless its docstring says otherwise.
`load_recipe` reads one, `settings.dump_settings` writes the complete one into the run directory. Stages
share the sections of `sections.py`; those here are each stage's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import yaml

from unispeech.training.sections import (
    VERSION,
    AugmentationSettings,
    BatchSettings,
    Chance,
    MaskingSettings,
    ModelSettings,
    OptimSettings,
    RuntimeSettings,
    ScheduleSettings,
    absolute,
    check_version,
    wrong_version,
)
from unispeech.training.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    load_settings,
)

B = TypeVar("B", bound=BatchSettings)


@dataclass(frozen=True, kw_only=True)
class DataSettings(BatchSettings):
    """Which labelled utterances fine-tuning learns from and how they are put into batches."""

    train: tuple[str, ...]
    """Cut files (`cuts.jsonl.gz`) or directories that `unispeech prepare` or `synthesise` wrote. Required."""
    shares: tuple[float, ...] | None = None
    """Share of the batches that each entry of `train` gets; None puts all into one heap."""
    units: Literal["phones", "characters", "label"] = "phones"
    """What is learned: the cuts' phones, the characters of their text, or their label (classification)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train:
            raise ValueError("`data.train` must name at least one set of cuts, but is empty.")
        if self.shares is not None:
            if len(self.shares) != len(self.train):
                raise ValueError(
                    f"`data.shares` must have a share for each of the {len(self.train)} entries of "
                    f"`data.train`, but has {len(self.shares)}."
                )
            if min(self.shares) <= 0:
                raise ValueError(f"`data.shares` must be positive, but are {list(self.shares)}.")

    def absolute(self) -> Self:
        """The same with absolute paths."""
        return _with_absolute_paths(self, "train", "dev")


@dataclass(frozen=True, kw_only=True)
class PretrainDataSettings(BatchSettings):
    """The labelled and the unlabelled stream of pre-training: one of them, or both in one run."""

    labelled: tuple[str, ...] = ()
    """Cuts with phones, which learn by CTC and by contrast: stage 1."""
    unlabelled: tuple[str, ...] = ()
    """Cuts whose transcripts, if there are any, are not looked at; they learn by contrast: stage 2."""
    unlabelled_share: Chance = 0.5
    """Share of the batches that is unlabelled, where both streams are given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.labelled and not self.unlabelled:
            raise ValueError(
                "`data.labelled` or `data.unlabelled` must name at least one set of cuts, but both are empty."
            )
        if not (self.labelled and self.unlabelled):
            if self.unlabelled_share != 0.5:
                raise ValueError(
                    f"`data.unlabelled_share` must be left out with one stream, but is "
                    f"{self.unlabelled_share}."
                )
        elif not 0 < self.unlabelled_share < 1:
            raise ValueError(
                f"`data.unlabelled_share` must lie between 0 and 1 for two streams, but is "
                f"{self.unlabelled_share}; leave one stream out instead."
            )

    def absolute(self) -> Self:
        """The same with absolute paths."""
        return _with_absolute_paths(self, "labelled", "unlabelled", "dev")


@dataclass(frozen=True, kw_only=True)
class FinetuneObjectiveSettings(Section):
    """What fine-tuning minimises."""

    name: ClassVar[str] = "objective"

    task: Literal["ctc", "classification"] = "ctc"
    """Sequences of symbols, or one label per utterance."""
    normaliser: Literal["labels", "utterances"] = "labels"
    """What the CTC loss of an update is divided by: its symbols, or (as in the paper) its utterances."""
    frame_updates: NonNegativeInt = 0
    """Updates at the start that learn the phone of every frame by cross-entropy instead of CTC."""
    frame_labels: Literal["alignment", "uniform"] = "alignment"
    """Phones of the frames: the cuts' phone times, or the transcript spread evenly over the utterance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "classification" and self.frame_updates:
            raise ValueError(
                f"`objective.frame_updates` must be 0 for classification, but is {self.frame_updates}."
            )


@dataclass(frozen=True, kw_only=True)
class PretrainObjectiveSettings(Section):
    """What pre-training minimises; the defaults are those of the paper's first stage."""

    name: ClassVar[str] = "objective"

    ctc_weight: Chance = 0.5
    """Weight of CTC in labelled utterances; the contrastive part has the rest, in unlabelled ones all."""
    replace_prob: Chance = 0.5
    """Chance that CTC sees a frame's quantized latent instead of its context."""
    frame_updates: NonNegativeInt = 0
    """Updates at the start that learn the phone of every frame instead of CTC, from the times of phones."""
    diversity_weight: NonNegativeFloat = 0.1
    """Weight of the diversity loss beside the contrastive loss."""
    feature_penalty_weight: NonNegativeFloat = 0.0
    """Weight of the convolutions' mean square."""
    temperature_start: PositiveFloat = 2.0
    """Gumbel temperature of the first update."""
    temperature_end: PositiveFloat = 0.1
    """Gumbel temperature below which it does not fall."""
    temperature_decay: PositiveFloat = 0.999995
    """Factor on the Gumbel temperature from one update to the next."""
    num_negatives: PositiveInt = 100
    """Frames that each masked frame is told from."""
    negatives_from: Literal["masked", "all"] = "masked"
    """Which frames of the utterance are negatives; all in the paper's stage 1, the masked in its stage 2."""
    exclude_equal_negatives: bool = False
    """Whether negatives with the codes of their positive are left out."""
    logit_temperature: PositiveFloat = 0.1
    """Divisor of the cosines."""
    feature_grad_mult: Chance = 1.0
    """Factor on the gradient into the convolutions; 0 freezes them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature_end > self.temperature_start or self.temperature_decay > 1:
            raise ValueError(
                f"the Gumbel temperature must not rise, but `objective.temperature_start` is "
                f"{self.temperature_start}, `temperature_end` {self.temperature_end} and `temperature_decay` "
                f"{self.temperature_decay}."
            )

    def temperature(self, update: int) -> float:
        """The Gumbel temperature of an update.

        Args:
            update: Number of updates made before it.
        """
        return max(self.temperature_start * self.temperature_decay**update, self.temperature_end)

    def config_fields(self) -> dict[str, object]:
        """The settings under the names of `UniSpeechConfig`."""
        return {
            "ctc_weight": self.ctc_weight,
            "replace_prob": self.replace_prob,
            "diversity_loss_weight": self.diversity_weight,
            "feature_penalty_weight": self.feature_penalty_weight,
            "num_negatives": self.num_negatives,
            "negatives_from": self.negatives_from,
            "exclude_equal_negatives": self.exclude_equal_negatives,
            "contrastive_logits_temperature": self.logit_temperature,
            "feature_grad_mult": self.feature_grad_mult,
            "gumbel_temperature": self.temperature_start,
        }


@dataclass(frozen=True, kw_only=True)
class HealthSettings(Section):
    """When a pre-training run has collapsed and is stopped."""

    name: ClassVar[str] = "health"

    min_perplexity: NonNegativeFloat = 2.0
    """Least perplexity of the chosen codes in each codebook, on average; 0 never stops."""
    max_accuracy: Chance = 0.98
    """Contrastive accuracy above which a run is suspected of a shortcut; 1 never stops."""
    max_shortcut_loss: NonNegativeFloat = 0.1
    """Contrastive loss per frame below which such a run is stopped."""
    patience: PositiveInt = 5
    """Lines of the log in a row that must say so."""
    grace_updates: NonNegativeInt = 200
    """Updates at the start in which nothing is judged."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A complete fine-tuning run: stage 3."""

    version: int = VERSION
    """Version of the recipe's keys."""
    model: ModelSettings
    """What the run starts from."""
    data: DataSettings
    """What is learned from."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """What is done to the audio."""
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    """What is hidden from the encoder."""
    objective: FinetuneObjectiveSettings = field(default_factory=FinetuneObjectiveSettings)
    """What is minimised."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """How weights move."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """For how long, at which rate."""
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    """How the run is carried out."""

    def __post_init__(self) -> None:
        check_version(self.version)
        if self.model.init is not None and self.model.config is not None:
            raise ValueError("exactly one of `model.init` and `model.config` must be given, but both are.")
        if (self.data.units == "label") != (self.objective.task == "classification"):
            raise ValueError(
                f"`data.units` ({self.data.units}) must fit `objective.task` ({self.objective.task}): "
                "classification learns label, ctc learns phones or characters."
            )
        _check_vocabulary(self.data, self.model)

    def absolute(self) -> Self:
        """The same with absolute paths."""
        return replace(self, data=self.data.absolute(), model=self.model.absolute())


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """A complete pre-training run: stage 1, stage 2, or both streams at once."""

    version: int = VERSION
    """Version of the recipe's keys."""
    model: ModelSettings
    """What the run starts from."""
    data: PretrainDataSettings
    """What is learned from."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """What is done to the audio."""
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    """What is hidden from the encoder, and asked for by the contrastive loss."""
    objective: PretrainObjectiveSettings = field(default_factory=PretrainObjectiveSettings)
    """What is minimised."""
    health: HealthSettings = field(default_factory=HealthSettings)
    """When the run is given up."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    """How weights move."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """For how long, at which rate."""
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    """How the run is carried out."""

    def __post_init__(self) -> None:
        check_version(self.version)
        _check_vocabulary(self.data, self.model)

    def absolute(self) -> Self:
        """The same with absolute paths."""
        return replace(self, data=self.data.absolute(), model=self.model.absolute())


R = TypeVar("R", FinetuneRecipe, PretrainRecipe)


def load_recipe(schema: type[R], path: str | Path, overrides: Sequence[str] = ()) -> R:
    """Read a recipe; its paths count from the working directory and become absolute.

    Args:
        schema: What the recipe is for: `FinetuneRecipe` or `PretrainRecipe`.
        path: The YAML file.
        overrides: "section.key=value" strings that win over the file.

    Returns:
        The recipe, complete with defaults.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key or a value is wrong; one line that names file and line.
    """
    try:
        return load_settings(schema, path, overrides).absolute()
    except ValueError:
        _check_kind(schema, Path(path))
        raise


def _check_kind(schema: type[FinetuneRecipe] | type[PretrainRecipe], path: Path) -> None:
    """Say of a recipe with mistakes that it is another altogether: of another version or another verb."""
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return
    sections = _entries(tree)
    version = sections.get("version")
    if isinstance(version, yaml.ScalarNode) and version.value != str(VERSION):
        raise ValueError(f"{path}:{version.start_mark.line + 1}: {wrong_version(version.value)}")
    verb, other = ("finetune", "pretrain") if schema is FinetuneRecipe else ("pretrain", "finetune")
    for key, node in _entries(sections.get("data")).items():
        if key in _DATA_KEYS[other]:
            raise ValueError(
                f"{path}:{node.start_mark.line + 1}: must be a recipe of unispeech {verb}, but `data.{key}` "
                f"belongs to one of unispeech {other}; use that, or another recipe."
            )


_DATA_KEYS = {"finetune": ("train",), "pretrain": ("labelled", "unlabelled")}
"""What each verb learns from, which the other does not have."""


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """The keys of a mapping, with their values; none of anything else."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return {str(key.value): value for key, value in pairs}


def _check_vocabulary(data: BatchSettings, model: ModelSettings) -> None:
    """Refuse the vocabulary of a model that is not there."""
    if data.vocabulary == "init" and model.init is None:
        raise ValueError(
            "`data.vocabulary` must not be init without `model.init`; name a directory or leave it out."
        )


def _with_absolute_paths(data: B, *names: str) -> B:
    """A copy whose lists of paths, and vocabulary, are absolute."""
    paths: dict[str, Any] = {name: tuple(map(absolute, getattr(data, name))) for name in names}
    if data.vocabulary not in {None, "init"}:
        paths["vocabulary"] = absolute(str(data.vocabulary))
    return replace(data, **paths)
