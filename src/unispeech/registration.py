"""Opt-in: transformers' Auto classes answer with ours."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForPreTraining,
)

from unispeech.configuration import UniSpeechConfig
from unispeech.models import (
    UniSpeechForCTC,
    UniSpeechForPreTraining,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
)


def register() -> None:
    """Make `AutoModelForCTC.from_pretrained(...)` and its like load our classes for UniSpeech checkpoints.

    Without this call nothing is registered, and the Auto classes answer with transformers' own UniSpeech. A
    second call changes nothing. Every Auto class that knows UniSpeech is covered: one left out would go on
    answering with transformers' class, given our configuration.
    """
    AutoConfig.register(UniSpeechConfig.model_type, UniSpeechConfig, exist_ok=True)
    AutoModel.register(UniSpeechConfig, UniSpeechModel, exist_ok=True)
    AutoModelForPreTraining.register(UniSpeechConfig, UniSpeechForPreTraining, exist_ok=True)
    AutoModelForCTC.register(UniSpeechConfig, UniSpeechForCTC, exist_ok=True)
    AutoModelForAudioClassification.register(
        UniSpeechConfig, UniSpeechForSequenceClassification, exist_ok=True
    )
