"""The sections that the recipes of all stages share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from unispeech.checkpoints.hub import is_hub_id
from unispeech.data.augmentation import Augmentation
from unispeech.training.settings import (
    FieldsOf,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Section,
)

VERSION = 1
"""The version of the recipe's keys; a recipe of another version is refused."""

Chance = Annotated[float, Range(low=0, high=1)]


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Section):
    """What the run starts from, and the dropouts that it trains with (None keeps those of the model)."""

    name: ClassVar[str] = "model"

    init: str | None = None
    """What to start from: the directory of a previous run (its `best`, else its `last`) or of a model, or a
    Hub id such as microsoft/unispeech-large-1500h-cv. None starts afresh."""
    config: Annotated[
        Mapping[str, object] | None, FieldsOf(module="unispeech.configuration", cls="UniSpeechConfig")
    ] = None
    """Fields of `UniSpeechConfig` for a model with random weights; either this or `init` is given.
    Pre-training takes both: what `init` has must then equal what is stated here."""
    hidden_dropout: Chance | None = None
    """Dropout behind every sublayer of the encoder."""
    attention_dropout: Chance | None = None
    """Dropout on attention weights."""
    activation_dropout: Chance | None = None
    """Dropout between the two matrices of a feed-forward block."""
    feat_proj_dropout: Chance | None = None
    """Dropout on the encoder's input."""
    feat_quantizer_dropout: Chance | None = None
    """Dropout on the quantizer's input; pre-training only."""
    final_dropout: Chance | None = None
    """Dropout before the head."""
    layerdrop: Chance | None = None
    """Chance that a whole encoder layer is left out of an update."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward pass, for less memory and a third more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init is None and self.config is None:
            raise ValueError("exactly one of `model.init` and `model.config` must be given, but neither is.")

    def absolute(self) -> "ModelSettings":
        """The same with the path made absolute, and a run directory replaced by the model in it.

        A Hub id stays as it is: a name of two parts whose first is no folder here.
        """
        if self.init is None or is_hub_id(self.init):
            return self
        return replace(self, init=model_in(absolute(self.init)))


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Section):
    """What the data sections of all stages have: how utterances are put into batches, and the dev data."""

    name: ClassVar[str] = "data"

    dev: tuple[str, ...] = ()
    """Cuts for validation; empty trains without validation, and `best` is then never written."""
    vocabulary: str | None = None
    """Directory with a saved vocabulary; "init" takes that of `model.init`; None builds it from the data."""
    batch_seconds: PositiveFloat = 40.0
    """Audio in a micro-batch of one process, padding included."""
    min_seconds: NonNegativeFloat = 0.1
    """Shorter utterances are left out of training."""
    max_seconds: PositiveFloat | None = None
    """Longer utterances are left out of training, unlabelled ones cropped; None takes `batch_seconds`."""
    num_buckets: PositiveInt | None = None
    """Groups of like length from which batches are drawn; None chooses by the amount of data."""
    num_workers: NonNegativeInt = 0
    """Processes that read audio; 0 reads in the training process."""
    normalize: bool | None = None
    """Whether waveforms get zero mean and unit variance; None means as `model.init` takes them, else True."""
    tag_languages: bool = False
    """Whether a vocabulary that is built gives each language phones of its own."""
    language_exponent: Chance | None = None
    """Languages are sampled by their hours to this power: 1 as they are, 0 all alike, 0.5 in the paper. None
    takes every utterance once an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise ValueError(
                f"`data.min_seconds` ({self.min_seconds}) must not exceed `data.max_seconds` "
                f"({self.max_seconds})."
            )
        if self.tag_languages and self.vocabulary is not None:
            raise ValueError(
                "`data.tag_languages` must be false where `data.vocabulary` names a vocabulary, but is true; "
                "the vocabulary says itself which phones are whose."
            )


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Section):
    """What is done to the audio of training, each time anew; nothing by default, never to the dev data."""

    name: ClassVar[str] = "augmentation"

    speed: tuple[float, float] | None = None
    """Slowest and fastest speed, 0.9 and 1.1 for instance; pitch and phone times move along."""
    noise_prob: Chance = 0.0
    """Chance that noise of a random colour is laid over an utterance."""
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    """Least and greatest ratio of speech to noise in dB."""
    reverb_prob: Chance = 0.0
    """Chance that an utterance sounds in a room."""
    microphone_prob: Chance = 0.0
    """Chance that another microphone hears an utterance: up to 6 dB per octave duller or brighter."""
    telephone_prob: Chance = 0.0
    """Chance that an utterance comes over a telephone: 300 to 3,400 Hz, mu-law."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.build()

    def build(self) -> Augmentation | None:
        """What the loader applies; None where nothing is to be done."""
        chances = (self.noise_prob, self.reverb_prob, self.microphone_prob, self.telephone_prob)
        if self.speed is None and not any(chances):
            return None
        return Augmentation(
            speed=self.speed,
            noise_prob=self.noise_prob,
            noise_snr_db=self.noise_snr_db,
            reverb_prob=self.reverb_prob,
            microphone_prob=self.microphone_prob,
            telephone_prob=self.telephone_prob,
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
    """How the run is carried out; only `seed`, `precision` and `compile` change what is learned."""

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
    shard: bool = False
    """Whether several processes share out weights, gradients and the optimiser's memory (FSDP2)."""
    compile: bool = False
    """Whether the layers of the encoder are compiled (torch.compile), which draw other numbers for dropout;
    the first update then takes minutes."""


def check_version(version: int) -> None:
    """Refuse a recipe of another version.

    Args:
        version: What the recipe says.

    Raises:
        ValueError: If it is not `VERSION`.
    """
    if version != VERSION:
        raise ValueError(wrong_version(version))


def wrong_version(version: object) -> str:
    """What is wrong with a recipe of another version.

    Args:
        version: What the recipe says.
    """
    return f"`version` must be {VERSION}, but is {version}; this recipe has other keys."


def absolute(path: str) -> str:
    """Make a path of a recipe absolute; it counts from the working directory.

    Args:
        path: As written; `~` is the home directory.
    """
    return str(Path(path).expanduser().absolute())


def model_in(directory: str) -> str:
    """Find the model that a directory stands for.

    Args:
        directory: A model directory, or that of a run.

    Returns:
        The directory itself, or the run's `best`, or its `last` where there was no validation.
    """
    if (Path(directory) / "config.json").exists():
        return directory
    for name in ("best", "last"):
        if (Path(directory) / name / "config.json").exists():
            return str(Path(directory) / name)
    return directory
