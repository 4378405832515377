"""Stock: under Trainer, accumulated gradients are as many times too large as there are micro-batches."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import tiny
from unispeech import UniSpeechForCTC, UniSpeechForSequenceClassification


class KeepGradient(TrainerCallback):
    """Remember the gradient that the optimiser is about to see."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def gradient(model_class, items, folder, batch_size):
    model = tiny.build(model_class, "layer", apply_spec_augment=False)
    keeper = KeepGradient()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=4 // batch_size,
        max_steps=1,
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        lr_scheduler_type="constant",
    )
    Trainer(model=model, args=arguments, train_dataset=items, callbacks=[keeper]).train()
    return keeper.gradient


@pytest.mark.parametrize(
    ("model_class", "labels"),
    [
        (UniSpeechForCTC, [[3, 4, 5], [6, 6, 2], [9, 1, 3], [5, 4, 3]]),
        (UniSpeechForSequenceClassification, [0, 3, 1, 1]),
    ],
)
def test_accumulated_gradient_is_that_of_the_full_batch(model_class, labels, tmp_path):
    x, mask = tiny.waveforms(6000, 5000, 4000, 6000)
    items = [
        {"input_values": a, "attention_mask": m, "labels": torch.tensor(label)}
        for a, m, label in zip(x, mask, labels, strict=True)
    ]
    whole = gradient(model_class, items, tmp_path, 4)
    accumulated = gradient(model_class, items, tmp_path, 1)
    assert abs(accumulated.norm() / whole.norm() - 1) < 1e-5
    torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)
