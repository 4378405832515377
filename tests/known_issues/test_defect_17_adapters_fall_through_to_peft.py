"""Stock: `target_lang` falls through to PEFT, base models have no adapters, `add_adapter` crashes."""

import pytest
import torch

import tiny
from unispeech import UniSpeechConfig, UniSpeechForCTC
from unispeech.text import Vocabulary

SYMBOLS = Vocabulary.build(["a b c d"], kind="phones")


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_a_language_is_saved_and_loaded(norm, tmp_path):
    settings = {"adapter_attn_dim": 5, "vocab_size": len(SYMBOLS), "pad_token_id": SYMBOLS.blank}
    model = tiny.build(UniSpeechForCTC, norm, **settings)
    model.save_pretrained(tmp_path)
    x, _ = tiny.waveforms(6000)
    plain = model(x).logits
    for _, parameter in model.adapter_parameters():
        torch.nn.init.normal_(parameter)
    trained = model(x).logits
    assert not torch.allclose(plain, trained)
    model.save_adapter(tmp_path, "xho", SYMBOLS)
    again = UniSpeechForCTC.from_pretrained(tmp_path, target_lang="xho")
    assert torch.equal(again(x).logits, trained)
    assert torch.equal(UniSpeechForCTC.from_pretrained(tmp_path)(x).logits, plain)


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_every_layer_has_one(norm):
    model = tiny.build(UniSpeechForCTC, norm, adapter_attn_dim=5)
    assert sum(name.endswith("adapter_layer") for name, _ in model.named_modules()) == 3


def test_convolutional_adapters_are_refused():
    with pytest.raises(ValueError, match="`add_adapter` must be False"):
        UniSpeechConfig(add_adapter=True)
