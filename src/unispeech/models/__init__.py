"""The network, in the order in which sound flows: features, encoder, quantizer, base, heads, pre-training."""

from unispeech.models.base import UniSpeechBaseModelOutput, UniSpeechModel, UniSpeechPreTrainedModel
from unispeech.models.heads import UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.models.pretraining import UniSpeechForPreTraining
from unispeech.models.pretraining_output import UniSpeechForPreTrainingOutput

__all__ = [
    "UniSpeechBaseModelOutput",
    "UniSpeechForCTC",
    "UniSpeechForPreTraining",
    "UniSpeechForPreTrainingOutput",
    "UniSpeechForSequenceClassification",
    "UniSpeechModel",
    "UniSpeechPreTrainedModel",
]
