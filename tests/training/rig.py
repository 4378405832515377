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

from unispeech.configuration import UniSpeechConfig
from unispeech.models import UniSpeechForCTC
from unispeech.text import Vocabulary
from unispeech.training.loop import Outcome, TrainingLoop
from unispeech.training.processes import make_accelerator
from unispeech.training.recipe import FinetuneObjectiveSettings
from unispeech.training.recognition import CTCStage
from unispeech.training.sections import OptimSettings, RuntimeSettings, ScheduleSettings
from unispeech.training.state import TrainingState, find_checkpoint, load_state

torch.set_num_threads(1)  # these networks are too small for two

Options = Mapping[str, Any]
VOCABULARY = Vocabulary.build(["a b c d"], kind="phones")


def tiny_model(**config: Any) -> UniSpeechForCTC:
    """A network of 2 x 16 whose layer norms make a padded batch equal to its rows."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = dict(
        vocab_size=len(VOCABULARY),
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
    return UniSpeechForCTC(UniSpeechConfig(**(defaults | config)))


def utterances(count: int = 8) -> list[tuple[str, torch.Tensor, list[int]]]:
    """Noise of different lengths with random labels, the same in every process."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for number in range(count):
        length = 4000 + 800 * int(torch.randint(0, 5, (), generator=generator))
        labels = torch.randint(1, len(VOCABULARY), (2 + number % 3,), generator=generator).tolist()
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
        "labels": pad([torch.tensor(labels) for *_, labels in items], batch_first=True, padding_value=-100),
        "num_samples": num_samples,
        "ids": [name for name, _, _ in items],
    }


class ListBatches:
    """Batches of a fixed size in a fixed order, a share of each for this process."""

    def __init__(self, size: int, *, rank: int = 0, num_processes: int = 1) -> None:
        items = utterances()
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
) -> TrainingLoop:
    """A loop over the tiny model; `resume` goes on from the newest checkpoint in `run`."""
    run.mkdir(parents=True, exist_ok=True)
    runtime_settings = RuntimeSettings(
        **({"precision": "float32", "log_every": 1, "save_every": 5} | runtime)
    )
    accelerator = make_accelerator(runtime_settings.precision)
    model, state = model or tiny_model(**config), TrainingState()
    if resume and (found := find_checkpoint(run, print)):
        state = load_state(found)
        model = UniSpeechForCTC.from_pretrained(found)
    optim_settings = OptimSettings(**({"learning_rate": 1e-2, "eps": 1e-6} | optim))
    if batches is None:
        batches = ListBatches(size, rank=accelerator.process_index, num_processes=accelerator.num_processes)
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
        save_model=model.save_pretrained,
        recipe="version: 1\n",
        accelerator=accelerator,
    )


def train(run: Path, **options: Any) -> tuple[Outcome, dict[str, torch.Tensor]]:
    """Run a loop; the outcome and the weights."""
    loop = make_loop(run, **options)
    outcome = loop.run()
    return outcome, {name: p.detach().clone() for name, p in loop.bare_model.named_parameters()}


def in_two_processes(
    scenarios: dict[str, dict[str, Any]], base: Path
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Run loops in two processes, one after the other; the weights of both processes for each."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
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
