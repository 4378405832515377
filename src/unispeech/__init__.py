"""unispeech: phones with honest times from any recording.

The public names are imported when they are first used, so that `import unispeech` and
`unispeech --help` load neither torch nor transformers.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unispeech.configuration import UniSpeechConfig
    from unispeech.models import (
        UniSpeechBaseModelOutput,
        UniSpeechForCTC,
        UniSpeechForPreTraining,
        UniSpeechForPreTrainingOutput,
        UniSpeechForSequenceClassification,
        UniSpeechModel,
        UniSpeechPreTrainedModel,
    )
    from unispeech.pipelines.aligner import Aligner
    from unispeech.pipelines.classifier import Classifier
    from unispeech.pipelines.embedder import Embedder
    from unispeech.pipelines.streaming import StreamingTranscriber
    from unispeech.pipelines.transcriber import Transcriber
    from unispeech.registration import register

__version__ = _version("unispeech")

_HOMES = {
    "UniSpeechConfig": "unispeech.configuration",
    "UniSpeechPreTrainedModel": "unispeech.models",
    "UniSpeechModel": "unispeech.models",
    "UniSpeechForCTC": "unispeech.models",
    "UniSpeechForSequenceClassification": "unispeech.models",
    "UniSpeechForPreTraining": "unispeech.models",
    "UniSpeechForPreTrainingOutput": "unispeech.models",
    "UniSpeechBaseModelOutput": "unispeech.models",
    "Aligner": "unispeech.pipelines.aligner",
    "Classifier": "unispeech.pipelines.classifier",
    "Embedder": "unispeech.pipelines.embedder",
    "StreamingTranscriber": "unispeech.pipelines.streaming",
    "Transcriber": "unispeech.pipelines.transcriber",
    "register": "unispeech.registration",
}

__all__ = [
    "Aligner",
    "Classifier",
    "Embedder",
    "StreamingTranscriber",
    "Transcriber",
    "UniSpeechBaseModelOutput",
    "UniSpeechConfig",
    "UniSpeechForCTC",
    "UniSpeechForPreTraining",
    "UniSpeechForPreTrainingOutput",
    "UniSpeechForSequenceClassification",
    "UniSpeechModel",
    "UniSpeechPreTrainedModel",
    "register",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unispeech' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
