"""The stages by themselves: losses, counts, error rates, labels that do not fit."""

import pytest
import rig
import torch

from unispeech.configuration import UniSpeechConfig
from unispeech.models import UniSpeechForSequenceClassification
from unispeech.objectives import ctc_loss
from unispeech.text import Vocabulary
from unispeech.training.classification import ClassificationStage
from unispeech.training.hypotheses import Hypothesis
from unispeech.training.parts import draw_layers, frozen_prefixes
from unispeech.training.recipe import FinetuneObjectiveSettings
from unispeech.training.recognition import CTCStage, uniform_frame_labels
from unispeech.training.sections import OptimSettings
from unispeech.training.stage import Step


def make_stage(**objective) -> CTCStage:
    settings = FinetuneObjectiveSettings(**objective)
    return CTCStage(rig.tiny_model(), rig.VOCABULARY, objective=settings, optim=OptimSettings())


def step(update: int = 0) -> Step:
    return Step(update=update, shared=torch.Generator().manual_seed(1))


def test_ctc_is_divided_by_symbols_or_by_utterances():
    batch = rig.collate(rig.utterances()[:3])
    stage = make_stage()
    losses = stage.losses(stage.model, batch, step())
    logits = stage.model(batch["input_values"], batch["attention_mask"]).logits
    num_frames = stage.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
    expected = ctc_loss(logits, num_frames, batch["labels"], blank=0)
    assert torch.allclose(losses.loss_sum, expected.sum)
    assert losses.num_targets == 2 + 3 + 4
    per_utterance = make_stage(normaliser="utterances")
    assert per_utterance.losses(per_utterance.model, batch, step()).num_targets == 3


def test_a_transcript_longer_than_its_audio_counts_and_learns_nothing():
    name, wave, _ = rig.utterances()[0]
    batch = rig.collate([(name, wave[:700], [1, 2, 3, 4]), rig.utterances()[1]])
    stage = make_stage()
    losses = stage.losses(stage.model, batch, step())
    assert torch.isfinite(losses.loss_sum)
    assert losses.logs["infeasible_fraction"] == (1, 2)


def test_frames_are_learned_first_and_ctc_after():
    batch = rig.collate(rig.utterances()[:2])
    stage = make_stage(frame_updates=2)
    num_frames = stage.model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
    batch["frame_labels"] = torch.full((2, int(num_frames.max())), -100)
    batch["frame_labels"][0, :5] = torch.tensor([0, 1, 1, 2, 0])
    losses = stage.losses(stage.model, batch, step(1))
    log_probs = stage.model(batch["input_values"], batch["attention_mask"]).logits.log_softmax(dim=-1)
    expected = -sum(log_probs[0, frame, label] for frame, label in enumerate([0, 1, 1, 2, 0]))
    assert torch.allclose(losses.loss_sum, expected)
    assert losses.num_targets == 5
    assert "loss/ctc" in stage.losses(stage.model, batch, step(2)).logs


def test_a_batch_without_times_teaches_no_frames():
    batch = rig.collate(rig.utterances()[:2])
    stage = make_stage(frame_updates=2)
    losses = stage.losses(stage.model, batch, step())
    losses.loss_sum.backward()
    assert losses.num_targets == 0
    assert all(p.grad is None or not p.grad.any() for p in stage.model.parameters())


def test_uniform_labels_are_spread_over_the_own_frames():
    labels = torch.tensor([[1, 2, -100], [3, 4, 1], [-100, -100, -100]])
    spread = uniform_frame_labels(labels, torch.tensor([5, 3, 4]), 6)
    assert spread.tolist() == [
        [1, 1, 1, 2, 2, -100],
        [3, 4, 1, -100, -100, -100],
        [-100] * 6,
    ]
    # More symbols than frames: some are passed over, none is out of place.
    assert uniform_frame_labels(labels, torch.tensor([1, 2, 0]), 2).tolist() == [
        [1, -100],
        [3, 4],
        [-100, -100],
    ]


def test_error_rates_of_words_and_characters():
    vocabulary = Vocabulary.build(["ab cd"], kind="characters")
    model = rig.tiny_model(vocab_size=len(vocabulary))
    stage = CTCStage(model, vocabulary, objective=FinetuneObjectiveSettings(), optim=OptimSettings())
    assert stage.metric == "wer"
    said = [
        Hypothesis(reference=list("ab|cd"), symbols=list("ab|ca"), loss=3.0, num_frames=10, num_blank=4),
        Hypothesis(reference=list("a"), symbols=[], loss=3.0, num_frames=2, num_blank=2),
    ]
    values = stage.summarise(said)
    assert values == {"wer": 2 / 3, "cer": 2 / 5, "loss/ctc": 1.0, "blank_ratio": 0.5}


def test_observations_are_what_was_said_and_what_was_heard():
    stage = make_stage()
    with torch.no_grad():
        stage.model.lm_head.weight.zero_()
        stage.model.lm_head.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0, 0.0]))
    stage.model.eval()
    (seen,) = stage.observe(stage.model, rig.collate(rig.utterances()[:1]))
    assert (seen.symbols, seen.num_blank) == (["b"], 0)
    assert len(seen.reference) == 2


@pytest.mark.parametrize("label", [5, -3])
def test_labels_out_of_range_are_named(label):
    batch = rig.collate(rig.utterances()[:2])
    batch["labels"][1, 0] = label
    stage = make_stage()
    with pytest.raises(ValueError, match=rf"utterance-1: `labels` must lie in \[0, 4\], .* but hold {label}"):
        stage.losses(stage.model, batch, step())


def test_a_vocabulary_that_does_not_fit_the_head_is_refused():
    with pytest.raises(
        ValueError, match=r"`vocabulary` must have a symbol for each of the head's 9 outputs, but has 5"
    ):
        CTCStage(
            rig.tiny_model(vocab_size=9),
            rig.VOCABULARY,
            objective=FinetuneObjectiveSettings(),
            optim=OptimSettings(),
        )


def test_classification_counts_utterances():
    sizes = rig.tiny_model().config.to_dict() | {"architectures": None}
    config = UniSpeechConfig(**sizes)
    config.num_labels = 3
    torch.manual_seed(0)
    stage = ClassificationStage(UniSpeechForSequenceClassification(config), optim=OptimSettings())
    batch = rig.collate(rig.utterances()[:4])
    batch["labels"] = torch.tensor([0, 1, 2, 0])
    losses = stage.losses(stage.model, batch, step())
    logits = stage.model(batch["input_values"], batch["attention_mask"]).logits
    assert torch.allclose(
        losses.loss_sum, torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")
    )
    assert losses.num_targets == 4
    values = stage.summarise(stage.observe(stage.model, batch))
    assert values["accuracy"] == float((logits.argmax(dim=-1) == batch["labels"]).float().mean())
    assert values["loss"] == pytest.approx(float(losses.loss_sum.detach()) / 4, rel=1e-5)
    batch["labels"][2] = 3
    with pytest.raises(ValueError, match=r"utterance-2: `labels` must lie in \[0, 2\]"):
        stage.losses(stage.model, batch, step())


def test_parameters_without_a_gradient_are_frozen_by_name():
    learning = OptimSettings(freeze_encoder_updates=3)
    assert frozen_prefixes(rig.tiny_model(), learning, 2) == ("unispeech.",)
    assert frozen_prefixes(rig.tiny_model(mask_time_prob=0.2), learning, 3) == ()
    assert frozen_prefixes(rig.tiny_model(mask_feature_prob=0.2), learning, 3) == (
        "unispeech.masked_spec_embed",
    )
    convolutions = OptimSettings(freeze_convolutions=True)
    assert frozen_prefixes(rig.tiny_model(mask_time_prob=0.2), convolutions, 0) == (
        "unispeech.feature_extractor.",
    )
    odd = rig.tiny_model(mask_time_prob=0.2, feat_extract_norm="group", conv_bias=True)
    assert frozen_prefixes(odd, OptimSettings(), 0) == (
        "unispeech.feature_extractor.conv_layers.0.conv.bias",
    )


def test_every_other_parameter_gets_a_gradient():
    """Else distributed training would wait for it for ever."""
    for config in (
        {"feat_extract_norm": "group", "conv_bias": True},
        {"layerdrop": 0.9},
        {"mask_feature_prob": 0.3},
    ):
        model = rig.tiny_model(**config)
        stage = CTCStage(model, rig.VOCABULARY, objective=FinetuneObjectiveSettings(), optim=OptimSettings())
        model.train()
        stage.losses(model, rig.collate(rig.utterances()[:2]), step()).loss_sum.backward()
        without = {name for name, p in model.named_parameters() if p.grad is None}
        assert all(name.startswith(stage.frozen(0)) for name in without)


def test_layers_are_dropped_alike_in_all_processes():
    model = rig.tiny_model(num_hidden_layers=12, layerdrop=0.5)
    one, other = step(), step()
    drawn = draw_layers(model, one.shared)
    assert torch.equal(drawn, draw_layers(model, other.shared))
    assert 0 < int(drawn.sum()) < 12
    assert draw_layers(rig.tiny_model(), one.shared) is None
