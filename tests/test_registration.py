"""Registering is asked for, covers every Auto class, and nothing happens without it."""

import subprocess
import sys

import torch
from transformers import UniSpeechConfig as StockConfig
from transformers import UniSpeechForPreTraining as StockForPreTraining

SCRIPT = """
import sys
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCTC, AutoModelForPreTraining
from transformers import AutoModelForAudioClassification
import unispeech, unispeech.models, unispeech.registration, unispeech.checkpoints.huggingface

autos = (AutoModel, AutoModelForCTC, AutoModelForAudioClassification, AutoModelForPreTraining)
homes = lambda: {type(auto.from_pretrained(sys.argv[1])).__module__.split(".")[0] for auto in autos}
transformers.logging.set_verbosity_error()
assert homes() == {"transformers"}, homes()
assert AutoConfig.from_pretrained(sys.argv[1]).__class__ is transformers.UniSpeechConfig
unispeech.register()
unispeech.register()
assert AutoConfig.from_pretrained(sys.argv[1]).__class__ is unispeech.UniSpeechConfig
assert [type(auto.from_pretrained(sys.argv[1])) for auto in autos] == [
    unispeech.UniSpeechModel,
    unispeech.UniSpeechForCTC,
    unispeech.UniSpeechForSequenceClassification,
    unispeech.UniSpeechForPreTraining,
]
assert type(AutoModelForCTC.from_config(unispeech.UniSpeechConfig(**{tiny}))) is unispeech.UniSpeechForCTC
recognise = transformers.pipeline("automatic-speech-recognition", model=sys.argv[1])
assert type(recognise.model) is unispeech.UniSpeechForCTC
"""

TINY = {
    "vocab_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8],
    "conv_kernel": [10],
    "conv_stride": [5],
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "num_codevectors_per_group": 3,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
}


def test_the_auto_classes_answer_with_ours_once_asked_to(tmp_path):
    from unispeech.text import Vocabulary

    torch.manual_seed(0)
    StockForPreTraining(StockConfig(**TINY)).save_pretrained(tmp_path)
    Vocabulary.build(["a b c"], kind="phones").save(tmp_path)
    script = SCRIPT.replace("{tiny}", repr(TINY))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
