"""Stock: one label gives loss 0 or an error, and `problem_type` is ignored."""

import pytest
import torch
import torch.nn.functional as F

import tiny
from unispeech import UniSpeechForSequenceClassification

X, MASK = tiny.waveforms(6000, 4000)


def run(labels, **overrides):
    model = tiny.build(UniSpeechForSequenceClassification, **overrides)
    output = model(X, MASK, labels)
    return output.loss, output.logits


@pytest.mark.parametrize(
    "labels", [torch.tensor([0.5, -2.0]), torch.tensor([[0.5], [-2.0]]), torch.tensor([1, -2])]
)
def test_one_label_is_regression(labels):
    loss, logits = run(labels, num_labels=1)
    torch.testing.assert_close(loss, F.mse_loss(logits.flatten(), labels.flatten().float()))


def test_regression_of_several_values():
    labels = torch.randn(2, 4)
    loss, logits = run(labels, problem_type="regression")
    torch.testing.assert_close(loss, F.mse_loss(logits, labels))


@pytest.mark.parametrize(
    "labels", [torch.tensor([1, 3]), torch.tensor([[1], [3]]), torch.tensor([1, 3]).int()]
)
def test_integers_are_single_labels(labels):
    loss, logits = run(labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels.flatten().long()))


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_floats_are_several_labels(problem):
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 1]])
    loss, logits = run(labels, problem_type=problem)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, labels))


@pytest.mark.parametrize("labels", [torch.tensor([1, 4]), torch.tensor([-1, 2])])
def test_a_label_out_of_range_is_named(labels):
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 3\], but are"):
        run(labels)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match="`labels` must hold 2 values for single_label_classification of 2 utterances"
    ):
        run(torch.tensor([1, 2, 3]))


def test_floats_are_no_class_numbers():
    with pytest.raises(TypeError, match=r"`labels` must be integers for single_label_classification"):
        run(torch.tensor([0.5, 1.0]), problem_type="single_label_classification")


@pytest.mark.parametrize("wrong", [2.0, -0.5])
def test_several_labels_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 1\] for multi_label_classification"):
        run(torch.tensor([[1.0, 0, 0, 1], [0, 0, wrong, 1]]))


def test_an_unknown_problem_is_named():
    with pytest.raises(ValueError, match=r"`problem_type` must be one of .* is 'regresion'; did you mean"):
        run(torch.tensor([1, 2]), problem_type="regresion")
