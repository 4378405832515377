"""Recogniser and classifier: losses, pooling, and life among the tools that users bring."""

import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

import tiny
from unispeech import UniSpeechForCTC, UniSpeechForSequenceClassification
from unispeech.models.heads import mean_over_frames


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_recogniser_loss_of_a_batch_is_that_of_its_rows(norm, reduction):
    model = tiny.build(UniSpeechForCTC, norm, ctc_loss_reduction=reduction)
    lengths = (8000, 5000, 6000)
    x, mask = tiny.waveforms(*lengths)
    labels = torch.tensor([[3, 4, 4, 5], [6, 7, -100, -100], [1, -100, -100, -100]])
    singles = [
        model(x[i : i + 1, :length], labels=labels[i : i + 1]).loss for i, length in enumerate(lengths)
    ]
    expected = torch.stack(singles).sum() / (1 if reduction == "sum" else 3)
    torch.testing.assert_close(model(x, mask, labels).loss, expected, rtol=1e-5, atol=0)


def test_recogniser_loss_is_torch_s():
    model = tiny.build(UniSpeechForCTC, ctc_loss_reduction="mean", pad_token_id=3)
    x, _ = tiny.waveforms(8000, 8000)
    labels = torch.tensor([[0, 4, 4], [6, 7, 10]])
    output = model(x, labels=labels)
    log_probs = output.logits.log_softmax(-1).transpose(0, 1)
    frames, symbols = torch.full((2,), 24), torch.full((2,), 3)
    torch.testing.assert_close(output.loss, F.ctc_loss(log_probs, labels, frames, symbols, blank=3))


@pytest.mark.parametrize("training", [False, True])
def test_rows_without_labels_are_rows_of_zero(training):
    model = tiny.build(UniSpeechForCTC, ctc_loss_reduction="sum", apply_spec_augment=False).train(training)
    x, _ = tiny.waveforms(8000, 8000)
    labels = torch.tensor([[3, 4], [-100, -100]])
    torch.testing.assert_close(model(x, labels=labels).loss, model(x[:1], labels=labels[:1]).loss)


@pytest.mark.parametrize("norm", tiny.NORMS)
@pytest.mark.parametrize("mixes", [False, True])
def test_classifier_pools_its_own_frames(norm, mixes):
    model = tiny.build(UniSpeechForSequenceClassification, norm, use_weighted_layer_sum=mixes)
    if mixes:
        model.layer_weights.data.normal_()
    x, mask = tiny.waveforms(8000, 5000, 100)
    logits = model(x, mask).logits
    torch.testing.assert_close(logits[1], model(x[1:2, :5000]).logits[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[2], model.classifier.bias)


def test_weighted_sum_by_hand():
    model = tiny.build(UniSpeechForSequenceClassification, "layer", use_weighted_layer_sum=True)
    model.layer_weights.data.normal_()
    x, _ = tiny.waveforms(8000)
    output = model(x, output_hidden_states=True)
    weights = model.layer_weights.softmax(0)
    mixed = sum(w * state for w, state in zip(weights, output.hidden_states, strict=True))
    torch.testing.assert_close(output.logits, model.classifier(model.projector(mixed).mean(1)))
    assert model(x).hidden_states is None


def test_mean_over_frames():
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]], [[1.0], [1.0], [1.0]]])
    assert mean_over_frames(x, torch.tensor([2, 3, 0])).flatten().tolist() == [2, 7, 0]
    assert mean_over_frames(x[1:2], None).flatten().tolist() == [7]


def test_ignored_class_labels():
    model = tiny.build(UniSpeechForSequenceClassification)
    x, _ = tiny.waveforms(4000, 4000)
    loss = model(x, labels=torch.tensor([2, -100])).loss
    torch.testing.assert_close(loss, model(x[:1], labels=torch.tensor([2])).loss)


def processor_parts(folder):
    vocabulary = {symbol: i for i, symbol in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdef"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json")), extractor


@pytest.mark.parametrize("norm", tiny.NORMS)
def test_recognition_pipeline(norm, tmp_path):
    model = tiny.build(UniSpeechForCTC, norm)
    tokenizer, extractor = processor_parts(tmp_path)
    recognise = pipeline(
        "automatic-speech-recognition", model=model, tokenizer=tokenizer, feature_extractor=extractor
    )
    sounds = [np.random.default_rng(i).normal(size=n).astype("float32") for i, n in enumerate((8000, 5000))]
    texts = [recognise(sound.copy())["text"] for sound in sounds]
    for sound, text in zip(sounds, texts, strict=True):
        values = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values
        with torch.no_grad():
            assert tokenizer.batch_decode(model(values).logits.argmax(-1))[0] == text
    together = recognise([sound.copy() for sound in sounds], batch_size=2)
    # The pipeline decodes the frames of padding too; what stands before them is what the single run gives.
    assert all(item["text"].startswith(text) for item, text in zip(together, texts, strict=True))
    with_times = recognise(sounds[0].copy(), return_timestamps="char")
    assert with_times["text"] == texts[0] and "chunks" in with_times
    assert recognise(sounds[0].copy(), chunk_length_s=0.3, stride_length_s=0.05)["text"]


def test_classification_pipeline(tmp_path):
    model = tiny.build(UniSpeechForSequenceClassification)
    classify = pipeline("audio-classification", model=model, feature_extractor=processor_parts(tmp_path)[1])
    scores = classify(np.random.default_rng(0).normal(size=8000).astype("float32"), top_k=4)
    assert len(scores) == 4 and sum(item["score"] for item in scores) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model_class", [UniSpeechForCTC, UniSpeechForSequenceClassification])
def test_low_rank_adapters_of_peft(model_class, tmp_path):
    peft = pytest.importorskip("peft")
    x, mask = tiny.waveforms(6000, 4000)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(tiny.build(model_class), settings)
    labels = torch.tensor([[3], [4]]) if model_class is UniSpeechForCTC else torch.tensor([1, 2])
    model(input_values=x, attention_mask=mask, labels=labels).loss.backward()
    trained = [n for n, p in model.named_parameters() if p.grad is not None]
    assert len(trained) == 3 * 2 * 2 and all("lora" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny.build(model_class), tmp_path)
    expected = model.eval()(x, mask).logits
    torch.testing.assert_close(again.eval()(x, mask).logits, expected)
    torch.testing.assert_close(again.merge_and_unload()(x, mask).logits, expected, rtol=0, atol=1e-5)


def test_training_and_evaluation_give_no_warning():
    model = tiny.build(UniSpeechForCTC).train()
    x, mask = tiny.waveforms(6000, 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x, mask, torch.tensor([[3], [4]])).loss.backward()
