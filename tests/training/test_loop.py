"""The loop: one update whatever the split, exact resumption, stops that lose nothing."""

import importlib
import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rig
import torch

from unispeech import UniSpeechForCTC
from unispeech.training.processes import has_bf16, leave_processes, make_accelerator
from unispeech.training.stage import Losses
from unispeech.training.state import find_checkpoint, load_state

EQUAL = {"optim": {"learning_rate": 1e-3, "eps": 1e-5}}
"""An eps that AdamW does not drown in: the gradient of a key bias is 0 but for rounding."""


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def lines(run: Path, *, timed: bool = False) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clocked = () if timed else ("audio_seconds_per_second", "waiting_fraction", "eta_seconds")
    return [{key: value for key, value in line.items() if key not in clocked} for line in read]


class StopAfter(rig.ListBatches):
    """Sends this process a signal while a batch is fetched."""

    def __init__(self, update: int, number: int = signal.SIGTERM) -> None:
        super().__init__(4)
        self.left, self.number = update, number

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
            yield batch


def test_accumulated_micro_batches_make_the_update_of_the_whole(tmp_path):
    _, start = rig.train(tmp_path / "start", schedule={"num_updates": 1}, optim={"learning_rate": 1e-12})
    _, whole = rig.train(tmp_path / "whole", size=4, **EQUAL)
    assert largest_difference(start, whole) > 1e-4
    for accumulate in (2, 4):
        _, parts = rig.train(
            tmp_path / str(accumulate), size=4 // accumulate, runtime={"accumulate": accumulate}, **EQUAL
        )
        assert largest_difference(whole, parts) < 1e-6


def test_two_processes_make_the_update_of_one(tmp_path):
    """Also with accumulation; and LayerDrop, frozen starts and a resumption keep the processes alike."""
    drop = {
        "config": {"layerdrop": 0.5, "hidden_dropout": 0.1, "mask_time_prob": 0.3, "mask_time_length": 2},
        "optim": {"freeze_encoder_updates": 2, "freeze_convolutions": True},
        "size": 2,
    }
    weights = rig.in_two_processes(
        {
            "halves": {"size": 2, **EQUAL},
            "quarters": {"size": 1, "runtime": {"accumulate": 2}, **EQUAL},
            "straight": {"schedule": {"num_updates": 6, "kind": "constant"}, "dev": True, **drop},
            "first": {"run": "resumed", "schedule": {"num_updates": 3, "kind": "constant"}, **drop},
            "second": {
                "run": "resumed",
                "schedule": {"num_updates": 6, "kind": "constant"},
                "resume": True,
                "dev": True,
                **drop,
            },
        },
        tmp_path,
    )
    _, whole = rig.train(tmp_path / "whole", size=4, **EQUAL)
    for name in weights:
        assert largest_difference(*weights[name]) == 0, f"the processes differ in {name}"
    assert largest_difference(whole, weights["halves"][0]) < 1e-6
    assert largest_difference(whole, weights["quarters"][0]) < 1e-6
    assert largest_difference(weights["straight"][0], weights["second"][0]) == 0
    assert lines(tmp_path / "straight")[-3:] == lines(tmp_path / "resumed")[-3:]
    with pytest.raises(
        ValueError, match=r"processes times `runtime.accumulate` must be 2 as in .* but are 1 times 1"
    ):
        rig.train(tmp_path / "resumed", resume=True, schedule={"num_updates": 7}, **drop)


def test_sharded_processes_make_the_update_of_one(tmp_path):
    """Also with accumulation; LayerDrop and a frozen start; and checkpoints serve sharded and whole runs."""
    shard = {"runtime": {"shard": True}}
    drop = {
        "config": {"layerdrop": 0.5, "mask_time_prob": 0.3, "mask_time_length": 2},
        "optim": {"freeze_encoder_updates": 2, **EQUAL["optim"]},
        "dev": True,
        "size": 2,
    }
    three, six = ({"schedule": {"num_updates": n, "kind": "constant"}} for n in (3, 6))
    weights = rig.in_two_processes(
        {
            "halves": {"size": 2, **EQUAL, **shard},
            "quarters": {"size": 1, **EQUAL, "runtime": {"shard": True, "accumulate": 2}},
            "whole": drop | six,
            "straight": drop | six | shard,
            "first": {"run": "resumed", **drop, **three, **shard},
            "second": {"run": "resumed", "resume": True, **drop, **six, **shard},
            "sharded first": {"run": "sharded first", **drop, **three, **shard},
            "then whole": {"run": "sharded first", "resume": True, **drop, **six},
            "whole first": {"run": "whole first", **drop, **three},
            "then sharded": {"run": "whole first", "resume": True, **drop, **six, **shard},
        },
        tmp_path,
    )
    _, alone = rig.train(tmp_path / "alone", size=4, **EQUAL)
    for name in weights:
        assert largest_difference(*weights[name]) == 0, f"the processes differ in {name}"
    for name in ("halves", "quarters"):
        assert largest_difference(alone, weights[name][0]) < 1e-6
    assert largest_difference(weights["straight"][0], weights["second"][0]) == 0
    assert lines(tmp_path / "straight")[-3:] == lines(tmp_path / "resumed")[-3:]
    for name in ("straight", "then whole", "then sharded"):
        assert largest_difference(weights["whole"][0], weights[name][0]) < 1e-6
    saved = UniSpeechForCTC.from_pretrained(tmp_path / "straight" / "last")
    assert largest_difference(dict(saved.named_parameters()), weights["straight"][0]) == 0


@pytest.mark.slow
def test_compiled_layers_make_the_same_update(tmp_path):
    """Also with LayerDrop, lengths that change, and a resumption; names in checkpoints stay."""
    settings = {"config": {"layerdrop": 0.5}, "size": 2, "dev": True, **EQUAL}
    _, plain = rig.train(tmp_path / "plain", **settings)
    compiled = {"runtime": {"compile": True, "save_every": 2}, **settings}
    _, fast = rig.train(tmp_path / "compiled", **compiled)
    assert largest_difference(plain, fast) < 1e-5
    rig.train(tmp_path / "resumed", **(compiled | {"schedule": {"num_updates": 2}}))
    _, resumed = rig.train(tmp_path / "resumed", resume=True, **compiled)
    saved = UniSpeechForCTC.from_pretrained(tmp_path / "resumed" / "last")
    assert largest_difference(dict(saved.named_parameters()), resumed) == 0


RANDOM = {
    "config": {"layerdrop": 0.3, "hidden_dropout": 0.1, "mask_time_prob": 0.3, "mask_time_length": 2},
    "runtime": {"log_every": 2, "validate_every": 4},
    "schedule": {"num_updates": 10},
    "dev": True,
}


def test_a_resumed_run_is_the_straight_run(tmp_path):
    """Ten updates at once; and five, a stop in the middle of a logging window, a kill, and five more."""
    _, straight = rig.train(tmp_path / "straight", batches=StopAfter(-1), **RANDOM)
    outcome, _ = rig.train(tmp_path / "resumed", batches=StopAfter(5), **RANDOM)
    assert (outcome.update, outcome.signal) == (5, signal.SIGTERM)
    # A kill without warning: lines that are behind the checkpoint, and one that is cut off.
    with (tmp_path / "resumed" / "log.jsonl").open("a") as log:
        log.write('{"update": 6, "loss": 1}\n{"update": 7, "lo')
    outcome, resumed = rig.train(tmp_path / "resumed", batches=StopAfter(-1), resume=True, **RANDOM)
    assert (outcome.update, outcome.signal) == (10, 0)
    assert largest_difference(straight, resumed) == 0
    assert lines(tmp_path / "straight") == lines(tmp_path / "resumed")
    assert len(lines(tmp_path / "straight")) == 5 + 3


def test_a_finished_run_does_nothing_more(tmp_path):
    _, weights = rig.train(tmp_path, dev=True)
    before = (tmp_path / "log.jsonl").read_text()
    outcome, again = rig.train(tmp_path, dev=True, resume=True)
    assert outcome.update == 4
    assert largest_difference(weights, again) == 0
    assert (tmp_path / "log.jsonl").read_text() == before


def test_a_stop_before_the_validation_is_made_up_for(tmp_path):
    options = {"dev": True, "runtime": {"validate_every": 2}}
    rig.train(tmp_path / "straight", **options)
    outcome, _ = rig.train(tmp_path / "stopped", batches=StopAfter(2, signal.SIGINT), **options)
    assert outcome.signal == signal.SIGINT
    assert outcome.best is None
    rig.train(tmp_path / "stopped", resume=True, **options)
    assert lines(tmp_path / "straight") == lines(tmp_path / "stopped")


def test_a_second_signal_ends_at_once(tmp_path):
    loop = rig.make_loop(tmp_path, batches=StopAfter(1))
    original = loop._step

    def step(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    loop._step = step
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path):
    class Falling(rig.CTCStage):
        def summarise(self, observations: list[Any]) -> dict[str, float]:
            return {"per": values.pop(0)}

    values = [0.9, 0.3, 0.5]
    model = rig.tiny_model()
    stage = Falling(
        model, rig.VOCABULARY, objective=rig.FinetuneObjectiveSettings(), optim=rig.OptimSettings()
    )
    outcome, _ = rig.train(
        tmp_path,
        model=model,
        stage=stage,
        dev=True,
        runtime={"validate_every": 2},
        schedule={"num_updates": 6},
    )
    assert outcome.best == 0.3
    assert load_state(tmp_path / "best").update == 4
    assert load_state(tmp_path / "last").update == 6
    assert find_checkpoint(tmp_path, print) == tmp_path / "last"


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_non_finite_step_stops_before_the_update(tmp_path, broken):
    class Breaking(rig.CTCStage):
        def losses(self, model: Any, batch: Any, step: Any) -> Losses:
            losses = super().losses(model, batch, step)
            if step.update < 2:
                return losses
            wrong = losses.loss_sum * float("nan")
            if broken == "gradient":
                # Finite forwards, infinite backwards: the slope of a square root at 0.
                wrong = losses.loss_sum + (losses.loss_sum * 0).sqrt()
            return Losses(loss_sum=wrong, num_targets=losses.num_targets)

    model = rig.tiny_model()
    stage = Breaking(
        model, rig.VOCABULARY, objective=rig.FinetuneObjectiveSettings(), optim=rig.OptimSettings()
    )
    loop = rig.make_loop(tmp_path, model=model, stage=stage, runtime={"save_every": 2}, size=2)
    with pytest.raises(
        ValueError, match=r"update 3: loss and gradient norm must be finite, but are .*nan"
    ) as raised:
        loop.run()
    listed = tmp_path / "non-finite-update-3.txt"
    assert str(listed) in str(raised.value)
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()[1:]] == [
        "utterance-4",
        "utterance-5",
    ]
    for kept in ("last", "stopped"):
        saved = rig.UniSpeechForCTC.from_pretrained(tmp_path / kept).state_dict()
        for name, weight in loop.bare_model.state_dict().items():
            assert torch.equal(weight, saved[name])


@pytest.mark.parametrize("save_every", [2, 100], ids=["last is as new", "nothing else is saved"])
def test_a_run_that_stopped_at_a_non_finite_step_goes_on_behind_it(tmp_path, save_every):
    seen = []

    class Breaking(rig.CTCStage):
        def losses(self, model: Any, batch: Any, step: Any) -> Losses:
            losses = super().losses(model, batch, step)
            seen.append((step.update, batch["ids"]))
            factor = float("nan") if "utterance-4" in batch["ids"] else 1.0
            return Losses(loss_sum=losses.loss_sum * factor, num_targets=losses.num_targets)

    def train(resume: bool) -> rig.TrainingLoop:
        model = rig.tiny_model()
        parts = {"objective": rig.FinetuneObjectiveSettings(), "optim": rig.OptimSettings()}
        stage = Breaking(model, rig.VOCABULARY, **parts)
        options = {"runtime": {"save_every": save_every}, "size": 2, "resume": resume}
        return rig.make_loop(tmp_path, model=model, stage=stage, **options)

    with pytest.raises(ValueError, match=r"goes on after update 2 without them, .*stopped, from the"):
        train(resume=False).run()
    assert find_checkpoint(tmp_path, print) == tmp_path / "stopped"
    outcome = train(resume=True).run()
    assert outcome.update == 4
    assert seen[3] == (2, ["utterance-6", "utterance-7"])
    assert not (tmp_path / "stopped").exists()
    assert load_state(tmp_path / "last").update == 4


def test_a_full_disk_at_a_non_finite_step_is_told_with_it(tmp_path, monkeypatch):
    class Breaking(rig.CTCStage):
        def losses(self, model: Any, batch: Any, step: Any) -> Losses:
            losses = super().losses(model, batch, step)
            return Losses(loss_sum=losses.loss_sum * float("nan"), num_targets=losses.num_targets)

    model = rig.tiny_model()
    parts = {"objective": rig.FinetuneObjectiveSettings(), "optim": rig.OptimSettings()}
    loop = rig.make_loop(tmp_path, model=model, stage=Breaking(model, rig.VOCABULARY, **parts))
    monkeypatch.setattr(
        loop, "_save_model", lambda *place: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(ValueError, match=r"must be finite, .*the checkpoint before, for .*No space left"):
        loop.run()


def test_a_frozen_encoder_rests_and_then_learns(tmp_path):
    """Also under bf16 autocast, which wraps the model anew when the encoder thaws."""
    start = dict(rig.tiny_model().named_parameters())
    frozen = {"freeze_encoder_updates": 2, "freeze_convolutions": True, "weight_decay": 0.1}
    options = {
        "optim": frozen,
        "runtime": {"precision": "bf16"},
        "schedule": {"num_updates": 2, "kind": "constant"},
    }
    _, weights = rig.train(tmp_path, **options)
    moved = {name for name in weights if not torch.equal(weights[name], start[name])}
    assert moved == {"lm_head.weight", "lm_head.bias"}
    _, weights = rig.train(
        tmp_path, resume=True, **(options | {"schedule": {"num_updates": 4, "kind": "constant"}})
    )
    still = {name for name in weights if torch.equal(weights[name], start[name])}
    assert still == {name for name in weights if name.startswith("unispeech.feature_extractor.")}
    assert all(weight.dtype == torch.float32 for weight in weights.values())


def test_no_batches_are_an_error(tmp_path):
    empty = rig.ListBatches(4)
    empty.batches = []
    with pytest.raises(
        ValueError, match=r"`data.train` must give at least one batch per process, but gives none"
    ):
        rig.train(tmp_path, batches=empty)


def test_a_failing_save_ends_the_run(tmp_path, monkeypatch):
    loop = rig.make_loop(tmp_path)
    monkeypatch.setattr(
        loop, "_save_model", lambda *place: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(
        OSError, match=r"last: checkpoint of update 4 could not be written \(No space left on device\)"
    ):
        loop.run()


def test_the_log_has_the_names_of_the_house(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=itertools.count(0, 10).__next__)
    monkeypatch.setattr("unispeech.training.monitor.time", clock)
    rig.train(tmp_path, dev=True)
    first, *_, last = lines(tmp_path, timed=True)
    assert set(first) == {
        "update",
        "audio_seconds",
        "loss",
        "loss/ctc",
        "blank_ratio",
        "infeasible_fraction",
        "grad_norm",
        "lr",
        "audio_seconds_per_second",
        "padding_fraction",
        "waiting_fraction",
        "eta_seconds",
    }
    assert set(last) == {"update", "audio_seconds", "dev/per", "dev/loss/ctc", "dev/blank_ratio"}
    assert 0 < first["padding_fraction"] < 0.5
    assert first["eta_seconds"] == 30  # three more updates like the one of 10 s
    assert first["audio_seconds"] == pytest.approx(
        sum(len(wave) for _, wave, _ in rig.utterances()[:4]) / 16_000
    )
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_bf16_is_told_from_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert has_bf16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    assert not has_bf16(torch.device("cpu"))
    assert not has_bf16(torch.device("meta"))


def test_bf16_is_refused_on_a_gpu_without(monkeypatch):
    monkeypatch.setattr(
        "unispeech.training.processes.PartialState",
        lambda cpu: type("S", (), {"device": torch.device("cuda")}),
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match=r"`runtime.precision` must be float32 on this GPU, but is bf16"):
        make_accelerator("bf16")


def test_a_process_trains_in_one_number_format_after_another():
    formats = [make_accelerator(precision).mixed_precision for precision in ("float32", "bf16", "float32")]
    assert formats == ["no", "bf16", "no"]


def test_a_launch_that_spreads_the_model_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(
        ValueError, match=r"`runtime.shard` must spread the model over processes, but ACCELERATE_USE_FSDP is"
    ):
        make_accelerator("float32")


def test_processes_part_at_the_end(tmp_path):
    """One that leaves without parting may be killed by its own threads, and torchrun calls the run failed."""
    leave_processes()  # alone: nothing to leave
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    leave_processes()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("command", "run"), [("pretrain", "run_pretraining"), ("finetune", "run_finetuning")]
)
def test_the_commands_part_from_the_other_processes(command, run, monkeypatch, tmp_path):
    done = []
    outcome = SimpleNamespace(signal=0)
    monkeypatch.setattr(
        f"unispeech.training.{command}.{run}", lambda *a, **k: done.append("trained") or outcome
    )
    monkeypatch.setattr("unispeech.training.processes.leave_processes", lambda: done.append("left"))
    assert getattr(importlib.import_module(f"unispeech.cli.{command}"), command)(None, output=tmp_path) == 0
    assert done == ["trained", "left"]
