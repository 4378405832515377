"""What a run is made of: the settings of a recipe, section by section.

A recipe is a YAML file with the sections below, every key optional unless its docstring says otherwise.
`load_recipe` reads one, `settings.dump_settings` writes the complete one into the run directory. Stages share
the sections `masking`, `optim`, `schedule` and `runtime`; the others are each stage's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from unispeech.training.settings import (
    FieldsOf,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Section,
    load_settings,
)

VERSION = 1
"""The version of the recipe's keys; a recipe of another version is refused."""

Chance = Annotated[float, Range(low=0, high=1)]


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Section):
    """What the run starts from, and the dropouts that it trains with (None keeps those of the model)."""

    name: ClassVar[str] = "model"

    init: str | None = None
    """Model directory to start from: a previous run's `best`, a converted checkpoint. None starts afresh."""
    config: Annotated[
        Mapping[str, object] | None, FieldsOf(module="unispeech.configuration", cls="UniSpeechConfig")
    ] = None
    """Fields of `UniSpeechConfig` for a model with random weights; either this or `init` is given."""
    hidden_dropout: Chance | None = None
    """Dropout behind every sublayer of the encoder."""
    attention_dropout: Chance | None = None
    """Dropout on attention weights."""
    activation_dropout: Chance | None = None
    """Dropout between the two matrices of a feed-forward block."""
    feat_proj_dropout: Chance | None = None
    """Dropout on the encoder's input."""
    final_dropout: Chance | None = None
    """Dropout before the head."""
    layerdrop: Chance | None = None
    """Chance that a whole encoder layer is left out of an update."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward pass, for less memory and a third more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.init is None) == (self.config is None):
            given = "neither is" if self.init is None else "both are"
            raise ValueError(f"exactly one of `model.init` and `model.config` must be given, but {given}.")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section):
    """Which utterances are learned from and how they are put into batches."""

    name: ClassVar[str] = "data"

    train: tuple[str, ...]
    """Cut files (`cuts.jsonl.gz`) or directories that `unispeech prepare` or `synthesise` wrote. Required."""
    dev: tuple[str, ...] = ()
    """The same for validation; empty trains without validation, and `best` is then never written."""
    units: Literal["phones", "characters", "label"] = "phones"
    """What is learned: the cuts' phones, the characters of their text, or their label (classification)."""
    vocabulary: str | None = None
    """Directory with a saved vocabulary; "init" takes that of `model.init`; None builds it from `train`."""
    batch_seconds: PositiveFloat = 40.0
    """Audio in a micro-batch of one process, padding included."""
    min_seconds: NonNegativeFloat = 0.1
    """Shorter utterances are left out of training."""
    max_seconds: PositiveFloat | None = None
    """Longer utterances are left out of training; None leaves out what is longer than `batch_seconds`."""
    num_buckets: PositiveInt | None = None
    """Groups of like length from which batches are drawn; None chooses by the amount of data."""
    num_workers: NonNegativeInt = 0
    """Processes that read audio; 0 reads in the training process."""
    normalize: bool | None = None
    """Whether waveforms get zero mean and unit variance; None means as `model.init` takes them, else True."""
    tag_languages: bool = False
    """Whether a vocabulary that is built gives each language phones of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train:
            raise ValueError("`data.train` must name at least one set of cuts, but is empty.")
        if self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise ValueError(
                f"`data.min_seconds` ({self.min_seconds}) must not exceed `data.max_seconds` "
                f"({self.max_seconds})."
            )


@dataclass(frozen=True, kw_only=True)
class MaskingSettings(Section):
    """Spans that are hidden from the encoder while it learns; None keeps what the model's config says."""

    name: ClassVar[str] = "masking"

    time_prob: Chance | None = None
    """Share of frames that the spans would cover if none overlapped."""
    time_length: PositiveInt | None = None
    """Frames in a span."""
    time_min_spans: NonNegativeInt | None = None
    """Fewest spans in an utterance."""
    channel_prob: Chance | None = None
    """Share of the encoder's input channels that the spans would cover if none overlapped."""
    channel_length: PositiveInt | None = None
    """Channels in a span."""
    channel_min_spans: NonNegativeInt | None = None
    """Fewest spans over the channels."""

    def config_fields(self) -> dict[str, float | int]:
        """The settings that are given, under the names of `UniSpeechConfig`."""
        fields = {
            "mask_time_prob": self.time_prob,
            "mask_time_length": self.time_length,
            "mask_time_min_masks": self.time_min_spans,
            "mask_feature_prob": self.channel_prob,
            "mask_feature_length": self.channel_length,
            "mask_feature_min_masks": self.channel_min_spans,
        }
        return {key: value for key, value in fields.items() if value is not None}


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
class OptimSettings(Section):
    """AdamW, and which parts learn."""

    name: ClassVar[str] = "optim"

    learning_rate: PositiveFloat = 1e-4
    """The highest rate of the schedule."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Memory of the running mean of gradients and of their squares."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled: a weight loses this share of itself times the learning rate in every update."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Longer gradients are shortened to this norm; None leaves them."""
    freeze_convolutions: bool = False
    """Whether the convolutional feature encoder keeps its weights for the whole run."""
    freeze_encoder_updates: NonNegativeInt = 0
    """Updates at the start in which only the head learns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"`optim.betas` must each lie in [0, 1), but are {list(self.betas)}.")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Section):
    """How long the run is and how its learning rate moves; see `schedules.schedule_factor`."""

    name: ClassVar[str] = "schedule"

    num_updates: PositiveInt = 1000
    """Updates in the whole run."""
    kind: Literal["tri-stage", "polynomial", "constant"] = "tri-stage"
    """How the rate falls after the hold: exponentially, by a power of the remaining share, not at all."""
    warmup_fraction: Fraction = 0.1
    """Share of the run in which the rate climbs."""
    hold_fraction: Fraction = 0.4
    """Share of the run in which it stays at its highest."""
    initial_factor: Fraction = 0.01
    """Rate of the first update, as a share of the highest."""
    final_factor: Fraction = 0.05
    """Rate at the end, as a share of the highest."""
    power: PositiveFloat = 1.0
    """Exponent of the polynomial; 1 is a straight line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_fraction + self.hold_fraction > 1:
            raise ValueError(
                f"`schedule.warmup_fraction` ({self.warmup_fraction}) and `schedule.hold_fraction` "
                f"({self.hold_fraction}) must not exceed 1 together."
            )
        if self.kind == "tri-stage" and self.final_factor == 0:
            raise ValueError("`schedule.final_factor` must be positive for tri-stage, but is 0.")


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings(Section):
    """How the run is carried out; nothing here but `seed` and `precision` changes what is learned."""

    name: ClassVar[str] = "runtime"

    seed: NonNegativeInt = 1
    """Weights, order of the data, masks and dropout follow from it."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Number format of the matrix products; "auto" takes bf16 where the processor has it."""
    accumulate: PositiveInt = 1
    """Micro-batches per update and process; the update is that of one batch of all of them."""
    log_every: PositiveInt = 10
    """Updates between two lines of `log.jsonl`."""
    validate_every: PositiveInt = 200
    """Updates between two validations; the last update is always followed by one."""
    save_every: PositiveInt = 200
    """Updates between two checkpoints; the last update and an interruption are always followed by one."""


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """A complete fine-tuning run."""

    version: int = VERSION
    """Version of the recipe's keys."""
    model: ModelSettings
    """What the run starts from."""
    data: DataSettings
    """What is learned from."""
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
        if self.version != VERSION:
            raise ValueError(
                f"`version` must be {VERSION}, but is {self.version}; this recipe has other keys."
            )
        if (self.data.units == "label") != (self.objective.task == "classification"):
            raise ValueError(
                f"`data.units` ({self.data.units}) must fit `objective.task` ({self.objective.task}): "
                "classification learns label, ctc learns phones or characters."
            )
        if self.data.vocabulary == "init" and self.model.init is None:
            raise ValueError(
                "`data.vocabulary` must not be init without `model.init`; name a directory or leave it out."
            )


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """Read a fine-tuning recipe; its paths count from the working directory and become absolute.

    Args:
        path: The YAML file.
        overrides: "section.key=value" strings that win over the file.

    Returns:
        The recipe, complete with defaults.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key or a value is wrong; one line that names file and line.
    """
    recipe = load_settings(FinetuneRecipe, path, overrides)
    data, model = recipe.data, recipe.model
    vocabulary = data.vocabulary
    if vocabulary not in {None, "init"}:
        vocabulary = _absolute(vocabulary)
    data = replace(
        data,
        train=tuple(map(_absolute, data.train)),
        dev=tuple(map(_absolute, data.dev)),
        vocabulary=vocabulary,
    )
    if model.init is not None:
        model = replace(model, init=_absolute(model.init))
    return replace(recipe, data=data, model=model)


def _absolute(path: str | None) -> str:
    return str(Path(path or ".").expanduser().absolute())
