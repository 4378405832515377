"""What a size of the comparison states: corpora, network, trainings."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from unispeech.training.recipe import PretrainObjectiveSettings
from unispeech.training.sections import MaskingSettings, ModelSettings
from unispeech.training.settings import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    load_settings,
)

FOLDER = Path(__file__).parent / "settings"


@dataclass(frozen=True, kw_only=True)
class CorporaSettings(Section):
    """How much speech of which kind."""

    name: ClassVar[str] = "corpora"

    source: str = "en"
    """Language with transcripts, synthetic."""
    synthetic: tuple[str, ...] = ("es", "it", "ky", "nl", "sv")
    """Target languages spoken by espeak-ng."""
    real: tuple[str, ...] = ("de", "zh", "es")
    """Target languages of human speech; see `corpora.REAL`."""
    shift: bool = True
    """Whether the change of domain is measured."""
    source_hours: PositiveFloat = 1.5
    """Labelled speech of the source."""
    target_hours: PositiveFloat = 1.0
    """Unlabelled speech of a synthetic target; of human speech all there is."""
    labelled_minutes: PositiveFloat = 10.0
    """Labelled speech of a target, part of its unlabelled speech."""
    valid_minutes: PositiveFloat = 1.0
    """Speech for the curves of fine-tuning; nothing is chosen by it."""
    test_minutes: PositiveFloat = 6.0
    """Speech that the systems are compared on."""
    words: tuple[int, int] = (2, 7)
    """Shortest and longest phrase; sentences are cut into such."""
    rate_range: tuple[int, int] = (120, 190)
    """Slowest and fastest speaker, words per minute."""
    noise_snr_db: tuple[float, float] | None = None
    """Noise on half of the synthetic speech, in dB below it."""
    shift_rate_range: tuple[int, int] = (190, 260)
    """The same for the other domain."""
    shift_snr_db: tuple[float, float] = (5.0, 20.0)
    """Noise of the other domain, in dB below the speech; a telephone comes behind it."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Section):
    """Length and rate of a training."""

    name: ClassVar[str] = "training"

    updates: PositiveInt
    """Updates."""
    batch_seconds: PositiveFloat
    """Audio in an update, padding included."""
    learning_rate: PositiveFloat
    """Peak of the rate."""
    warmup_fraction: Fraction = 0.1
    """Share of the updates in which the rate climbs."""
    hold_fraction: Fraction = 0.4
    """Share in which it stays."""
    final_factor: Fraction = 0.05
    """Rate at the end, as a share of the highest."""
    num_workers: NonNegativeInt = 0
    """Processes that read audio; 0 reads in the training process, which suits two cores."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients are shortened to this norm."""
    frame_updates: NonNegativeInt = 0
    """Updates at the start that learn phones frame by frame instead of by CTC, in all systems alike, where
    phone times are known: everywhere but in human speech."""


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings(TrainingSettings):
    """What every system gets at the end, all alike."""

    name: ClassVar[str] = "finetuning"

    human_updates: PositiveInt | None = None
    """Updates on human speech, which CTC has to learn from the start; None: as many as on synthetic."""
    freeze_encoder_updates: NonNegativeInt = 0
    """Updates at the start in which only the head learns; 0 for the system without pre-training."""
    freeze_convolutions: bool = False
    """Whether the convolutions keep their weights; never in the system without pre-training."""


@dataclass(frozen=True, kw_only=True)
class DesignSettings(Section):
    """What is compared with what."""

    name: ClassVar[str] = "design"

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings; all of the first before any of the second."""
    stage1_share: PositiveFloat = 0.5
    """Share of the updates of stages 1 + 2 that stage 1 gets."""
    stage2_rate: PositiveFloat = 0.5
    """Learning rate of stage 2, as a share of that of stage 1 (0.2 in the paper)."""
    ablation_target: str = "es"
    """Target on which weights and replacement are varied; a synthetic one."""
    ctc_weights: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Weights of CTC that are tried."""
    replace_probs: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    """Replacement probabilities that are tried."""
    mask_probs: tuple[float, ...] = (0.1, 0.2)
    """Shares of frames under masks that are tried beside that of the comparison."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A size of the comparison."""

    version: Literal[1] = 1
    """Version of the keys."""
    corpora: CorporaSettings = field(default_factory=CorporaSettings)
    """The speech."""
    design: DesignSettings = field(default_factory=DesignSettings)
    """The comparison."""
    model: ModelSettings
    """The network, by `config`."""
    pretraining: TrainingSettings
    """Every pre-training, the transfer's too."""
    objective: PretrainObjectiveSettings = field(default_factory=PretrainObjectiveSettings)
    """The loss; weights and negatives as in stage 1."""
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    """Masks of stage 1 and of the mixed run."""
    unlabelled_masking: MaskingSettings = field(default_factory=MaskingSettings)
    """Masks of stage 2 and of learning by contrast alone."""
    finetuning: FinetuningSettings
    """Every fine-tuning."""
    finetuning_masking: MaskingSettings = field(default_factory=MaskingSettings)
    """Its masks; those of the supervised transfer, too."""


def load(size: str) -> Settings:
    """Read the settings of a size.

    Args:
        size: Name of a file in `settings/`, or the path of another.

    Returns:
        The settings.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key or a value is wrong.
    """
    path = FOLDER / f"{size}.yaml"
    return load_settings(Settings, path if path.exists() else Path(size))
