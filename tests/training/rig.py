"""A tiny run for the tests of the loop: a small model, some noise, batches that can be resumed."""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from unispeech.configuration import UniSpeechConfig
from unispeech.masking import NO_NEGATIVE, sample_negatives, sample_spans
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining
from unispeech.text import Vocabulary
from unispeech.training.loop import Outcome, TrainingLoop
from unispeech.training.pretraining import PretrainingStage
from unispeech.training.processes import leave_processes, make_accelerator
from unispeech.training.recipe import FinetuneObjectiveSettings, HealthSettings, PretrainObjectiveSettings
from unispeech.training.recognition import CTCStage
from unispeech.training.sections import OptimSettings, RuntimeSettings, ScheduleSettings
from unispeech.training.sharding import gathered
from unispeech.training.state import TrainingState, find_checkpoint, load_state

torch.set_num_threads(1)  # these networks are too small for two

Options = Mapping[str, Any]
VOCABULARY = Vocabulary.build(["a b c d"], kind="phones")


def tiny_config(**config: Any) -> UniSpeechConfig:
    """A network of 2 x 16 whose layer norms make a padded batch equal to its rows."""
    defaults: dict[str, Any] = dict(
        vocab_size=len(VOCABULARY),
        num_ctc_classes=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 8, 8),
        num_conv_pos_embeddings=5,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.0,
    )
    return UniSpeechConfig(**(defaults | config))


def tiny_model(**config: Any) -> UniSpeechForCTC:
    """A recogniser, the same every time."""
    torch.manual_seed(0)
    return UniSpeechForCTC(tiny_config(**config))


def tiny_pretrainer(**config: Any) -> UniSpeechForPreTraining:
    """A model for pre-training, the same every time: two codebooks of four entries."""
    torch.manual_seed(0)
    quantizer = dict(num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8, num_negatives=3)
    masks = dict(mask_time_prob=0.5, mask_time_length=2, mask_time_min_masks=1)
    return UniSpeechForPreTraining(tiny_config(**(quantizer | masks | config)))


class SeededStage(PretrainingStage):
    """Draws what chance decides by utterance and update, so that it does not hang on the batch around it."""

    def draws(self, batch: Any, step: Any) -> dict[str, Any]:
        config, (rows, samples) = self.model.config, batch["input_values"].shape
        lengths = self.model.frame_lengths(batch["num_samples"], samples)
        T = int(self.model._get_feat_extract_output_lengths(samples))
        books = (config.num_codevector_groups, config.num_codevectors_per_group)
        mask = torch.zeros(rows, T, dtype=torch.bool)
        negatives = torch.full((rows, T, config.num_negatives), NO_NEGATIVE)
        replacement = torch.zeros(rows, T)
        noise = torch.zeros(2, rows, T, *books)
        for row, (name, length) in enumerate(zip(batch["ids"], lengths.tolist(), strict=True)):
            generator = torch.Generator().manual_seed(1000 * step.update + int(name.rpartition("-")[2]))
            own = sample_spans(
                torch.tensor([length]), length, prob=0.5, span_length=2, min_spans=1, generator=generator
            )
            drawn = sample_negatives(own, own, config.num_negatives, generator=generator)[0]
            mask[row, :length] = own[0]
            negatives[row, :length] = torch.where(drawn == NO_NEGATIVE, drawn, drawn + row * T)
            replacement[row, :length] = (torch.rand(length, generator=generator) < 0.5).float()
            uniform = torch.rand(2, length, *books, generator=generator).clamp(1e-6, 1 - 1e-6)
            noise[:, row, :length] = -torch.log(-torch.log(uniform))
        return {
            "mask_time_indices": mask,
            "sampled_negative_indices": negatives,
            "replacement": replacement,
            "gumbel_noise": (noise[0], noise[1]),
        }


def make_stage(model: UniSpeechForPreTraining, kind: type[PretrainingStage], **options: Any) -> Any:
    """A stage of pre-training with default settings but for those given."""
    defaults: dict[str, Any] = dict(
        objective=PretrainObjectiveSettings(num_negatives=3),
        health=HealthSettings(min_perplexity=0),
        optim=OptimSettings(),
        has_labels=True,
    )
    return kind(model, VOCABULARY, **(defaults | options))


def utterances(
    count: int = 8, *, every_third_unlabelled: bool = False
) -> list[tuple[str, torch.Tensor, list[int]]]:
    """Noise of different lengths with random labels, the same in every process."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for number in range(count):
        length = 4000 + 800 * int(torch.randint(0, 5, (), generator=generator))
        labels = torch.randint(1, len(VOCABULARY), (2 + number % 3,), generator=generator).tolist()
        if every_third_unlabelled and number % 3 == 0:
            labels = []
        made.append((f"utterance-{number}", torch.randn(length, generator=generator), labels))
    return made


def collate(items: list[tuple[str, torch.Tensor, list[int]]]) -> dict[str, Any]:
    """A batch as `unispeech.data.batches` makes it."""
    pad = torch.nn.utils.rnn.pad_sequence
    num_samples = torch.tensor([len(wave) for _, wave, _ in items])
    return {
        "input_values": pad([wave for _, wave, _ in items], batch_first=True),
        "attention_mask": pad(
            [torch.ones(len(wave), dtype=torch.long) for _, wave, _ in items], batch_first=True
        ),
        "labels": pad(
            [torch.tensor(labels, dtype=torch.long) for *_, labels in items],
            batch_first=True,
            padding_value=-100,
        ),
        "num_samples": num_samples,
        "ids": [name for name, _, _ in items],
    }


class ListBatches:
    """Batches of a fixed size in a fixed order, a share of each for this process."""

    def __init__(self, size: int, *, rank: int = 0, num_processes: int = 1, mixed: bool = False) -> None:
        items = utterances(every_third_unlabelled=mixed)
        self.batches = [items[i : i + size] for i in range(0, len(items), size)][rank::num_processes]
        self.position = 0

    def __iter__(self) -> Any:
        while self.position < len(self.batches):
            self.position += 1
            yield collate(self.batches[self.position - 1])
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def make_loop(
    run: Path,
    *,
    model: Any = None,
    batches: Any = None,
    size: int = 4,
    resume: bool = False,
    stage: Any = None,
    config: Options = MappingProxyType({}),
    optim: Options = MappingProxyType({}),
    schedule: Options = MappingProxyType({}),
    runtime: Options = MappingProxyType({}),
    dev: bool = False,
    objective: Options = MappingProxyType({}),
    pretraining: bool = False,
) -> TrainingLoop:
    """A loop over the tiny model; `resume` goes on from the newest checkpoint in `run`."""
    run.mkdir(parents=True, exist_ok=True)
    runtime_settings = RuntimeSettings(
        **({"precision": "float32", "log_every": 1, "save_every": 5} | runtime)
    )
    accelerator = make_accelerator(runtime_settings.precision)
    make_model = tiny_pretrainer if pretraining else tiny_model
    model, state = model or make_model(**config), TrainingState()
    if resume and (found := find_checkpoint(run, print)):
        state = load_state(found)
        model = type(model).from_pretrained(found)
    optim_settings = OptimSettings(**({"learning_rate": 1e-2, "eps": 1e-6} | optim))
    if batches is None:
        place = {"rank": accelerator.process_index, "num_processes": accelerator.num_processes}
        batches = ListBatches(size, mixed=pretraining, **place)
    if pretraining:
        stage = stage or make_stage(model, SeededStage, optim=optim_settings)
    stage = stage or CTCStage(
        model, VOCABULARY, objective=FinetuneObjectiveSettings(**objective), optim=optim_settings
    )
    return TrainingLoop(
        model=model,
        stage=stage,
        train_batches=batches,
        dev_batches=(lambda: iter([collate(utterances()[:3])])) if dev else None,
        optim=optim_settings,
        schedule=ScheduleSettings(**({"num_updates": 4, "warmup_fraction": 0.0} | schedule)),
        runtime=runtime_settings,
        run=run,
        state=state,
        save_model=lambda place, weights: model.save_pretrained(place, state_dict=weights),
        recipe="version: 1\n",
        accelerator=accelerator,
    )


def train(run: Path, **options: Any) -> tuple[Outcome, dict[str, torch.Tensor]]:
    """Run a loop; the outcome and the weights."""
    loop = make_loop(run, **options)
    is_shared = any(isinstance(p, DTensor) for p in loop.bare_model.parameters())
    assert is_shared == (loop.runtime.shard and loop.accelerator.num_processes > 1)
    outcome = loop.run()
    return outcome, {name: gathered(p.detach().clone()) for name, p in loop.bare_model.named_parameters()}


def in_two_processes(
    scenarios: dict[str, dict[str, Any]], base: Path
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Run loops in two processes, one after the other; the weights of both processes for each."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONWARNINGS"] = "error:FSDP2-wrapped module"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, __file__, str(base), repr(scenarios)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: [torch.load(base / f"{name}-{rank}.pt") for rank in (0, 1)] for name in scenarios}


if __name__ == "__main__":
    base, scenarios = Path(sys.argv[1]), ast.literal_eval(sys.argv[2])
    for name, options in scenarios.items():
        _, weights = train(base / options.pop("run", name), **options)
        torch.save(weights, base / f"{name}-{os.environ['RANK']}.pt")
    leave_processes()
