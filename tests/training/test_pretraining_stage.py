"""Pre-training in the loop: one update however it is divided, resumed to the bit, stopped at a collapse."""

import json
import math
import re
from itertools import pairwise

import pytest
import rig
import torch

from unispeech.objectives import IGNORED_LABEL
from unispeech.training.hypotheses import Hypothesis
from unispeech.training.pretraining import CODES, Observation, PretrainingStage
from unispeech.training.recipe import HealthSettings, PretrainObjectiveSettings
from unispeech.training.stage import Step
from unispeech.training.state import LAST, load_state

# The diversity loss looks at the codes of a micro-batch together, in the original too, so it hangs on how an
# update is divided; everything else is a sum over frames and utterances.
EQUAL = {
    "pretraining": True,
    "config": {"diversity_loss_weight": 0.0},
    "optim": {"learning_rate": 1e-3, "eps": 1e-5},  # AdamW turns rounding into steps where eps is too small
    "schedule": {"num_updates": 4, "kind": "constant"},
}


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def lines(run):
    kept = []
    for line in (run / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        clocked = {"audio_seconds_per_second", "waiting_fraction", "eta_seconds"}
        kept.append({k: v for k, v in values.items() if k not in clocked})
    return kept


def make_stage(model=None, **options):
    return rig.make_stage(model or rig.tiny_pretrainer(), PretrainingStage, **options)


def run_batch(model, stage, batch, update=0):
    model.train()
    return stage.losses(model, batch, Step(update=update, shared=torch.Generator().manual_seed(0)))


def test_four_micro_batches_make_the_update_of_one_batch(tmp_path):
    _, whole = rig.train(tmp_path / "whole", size=4, **EQUAL)
    _, parts = rig.train(tmp_path / "parts", size=1, runtime={"accumulate": 4}, **EQUAL)
    assert largest_difference(whole, parts) < 1e-6
    start = dict(rig.tiny_pretrainer().named_parameters())
    moved = [name for name in whole if not torch.equal(whole[name], start[name])]
    assert {"quantizer.codevectors", "project_hid.weight", "ctc_proj.weight"} <= set(moved)


def test_two_processes_make_the_update_of_one_and_resume_to_the_bit(tmp_path):
    drop = {
        "pretraining": True,
        "config": {"layerdrop": 0.5, "hidden_dropout": 0.1},
        "size": 2,
    }
    weights = rig.in_two_processes(
        {
            "halves": {"size": 2, **EQUAL},
            "quarters": {"size": 1, "runtime": {"accumulate": 2}, **EQUAL},
            "sharded": {"size": 1, "runtime": {"accumulate": 2, "shard": True}, **EQUAL},
            "straight": {"schedule": {"num_updates": 6, "kind": "constant"}, **drop},
            "first": {"run": "resumed", "schedule": {"num_updates": 3, "kind": "constant"}, **drop},
            "second": {
                "run": "resumed",
                "schedule": {"num_updates": 6, "kind": "constant"},
                "resume": True,
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
    assert largest_difference(whole, weights["sharded"][0]) < 1e-6
    assert largest_difference(weights["straight"][0], weights["second"][0]) == 0
    assert lines(tmp_path / "straight")[-3:] == lines(tmp_path / "resumed")[-3:]


def test_a_resumed_run_is_the_straight_run_with_everything_drawn(tmp_path):
    """Masks, negatives, replacement and noise come from the model's own generator here."""
    options = {
        "pretraining": True,
        "config": {"layerdrop": 0.3, "hidden_dropout": 0.1, "feat_quantizer_dropout": 0.1},
        "runtime": {"log_every": 2, "save_every": 3},
    }

    def train(run, **more):
        schedule = {"num_updates": 7, "kind": "constant"}
        return rig.train(tmp_path / run, **options, schedule=schedule, **more)[1]

    class Killed(rig.ListBatches):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if self.epoch and number:
                    raise KeyboardInterrupt
                yield batch
            self.epoch += 1

    killed = Killed(4, mixed=True)
    killed.epoch = 0
    straight = train("straight")
    with pytest.raises(KeyboardInterrupt):
        train("resumed", batches=killed)
    assert load_state(tmp_path / "resumed" / LAST).update == 3, "in the middle of two lines of the log"
    assert largest_difference(straight, train("resumed", resume=True)) == 0
    assert lines(tmp_path / "straight") == lines(tmp_path / "resumed")


def test_temperature_falls_as_in_the_original():
    """2 at first, 0.736 at update 200,000, 0.1 from update 599,146 on."""
    settings = PretrainObjectiveSettings()
    assert settings.temperature(0) == 2.0
    assert settings.temperature(200_000) == pytest.approx(0.736, abs=5e-4)
    assert settings.temperature(599_000) > 0.1
    assert settings.temperature(600_000) == 0.1
    stage = make_stage(objective=PretrainObjectiveSettings(temperature_decay=0.5, num_negatives=3))
    assert stage.start_update(stage.model, 2) == {"temperature": 0.5}
    assert stage.model.quantizer.temperature == 0.5


def test_a_line_of_the_log_has_the_health_of_the_run(tmp_path):
    rig.train(tmp_path, pretraining=True, dev=True, schedule={"num_updates": 2})
    train, dev = lines(tmp_path)[-2:]
    for name in (
        "loss",
        "loss/contrastive",
        "loss/diversity",
        "loss/ctc",
        "contrastive_accuracy",
        "grad_norm",
    ):
        assert math.isfinite(train[name]), name
    assert train["contrastive_chance"] == 0.25
    assert 2 <= train["code_perplexity"] <= 8
    assert 2 <= train["prob_perplexity"] <= 8
    assert 0 <= train["dead_codes/0"] < 4
    assert 0 < train["masked_fraction"] < 1
    assert 0 <= train["equal_negatives"] <= 1
    assert 0 <= train["blank_ratio"] <= 1
    assert train["temperature"] == pytest.approx(2 * 0.999995)
    assert {"dev/per", "dev/loss/ctc", "dev/loss/contrastive", "dev/contrastive_accuracy"} <= set(dev)


def test_without_transcripts_the_head_rests_and_the_contrastive_loss_decides(tmp_path):
    model = rig.tiny_pretrainer()
    before = model.ctc_proj.weight.detach().clone()
    stage = make_stage(model, has_labels=False)
    assert stage.metric == "loss/contrastive"
    assert "ctc_proj." in stage.frozen(0)
    _, weights = rig.train(tmp_path, model=model, stage=stage, dev=True, schedule={"num_updates": 2})
    assert torch.equal(weights["ctc_proj.weight"], before)
    assert "dev/per" in lines(tmp_path)[-1]
    assert load_state(tmp_path / LAST).best == lines(tmp_path)[-1]["dev/loss/contrastive"]


def test_the_head_that_rests_is_judged_by_those_dev_utterances_that_have_a_transcript():
    model = rig.tiny_pretrainer().eval()
    stage = make_stage(model, has_labels=False)
    batch = rig.collate(rig.utterances(3))
    with torch.no_grad():
        (of_all,) = stage.observe(model, batch)
        batch["labels"][1] = IGNORED_LABEL
        (of_two,) = stage.observe(model, batch)
        batch["labels"][:] = IGNORED_LABEL
        (of_none,) = stage.observe(model, batch)
    assert of_two.hypotheses == [of_all.hypotheses[0], of_all.hypotheses[2]]
    assert not of_none.hypotheses
    assert "per" in stage.summarise([of_two])
    assert stage.summarise([of_none]).keys() == {"loss/contrastive", "contrastive_accuracy"}


def test_batches_without_labels_learn_by_contrast_alone():
    model = rig.tiny_pretrainer()
    stage = make_stage(model, has_labels=False)
    batch = rig.collate(rig.utterances(2))
    del batch["labels"]
    losses = run_batch(model, stage, batch)
    assert "loss/ctc" not in losses.logs
    assert losses.num_targets == losses.logs["masked_fraction"][0]
    assert losses.counts[CODES].sum() == 2 * losses.num_targets  # one code in each of two books


def test_the_start_learns_frames_instead_of_ctc():
    objective = PretrainObjectiveSettings(num_negatives=3, frame_updates=2, replace_prob=0.0)
    batch = rig.collate(rig.utterances(3, every_third_unlabelled=True))
    model = rig.tiny_pretrainer(ctc_weight=1.0, replace_prob=0.0)
    stage = rig.make_stage(model, rig.SeededStage, objective=objective)
    T = int(model._get_feat_extract_output_lengths(batch["input_values"].shape[1]))
    frame_labels = torch.full((3, T), IGNORED_LABEL)
    frame_labels[1, :4] = torch.tensor([1, 1, 0, 2])

    def gradient(update, batch):
        model.zero_grad()
        losses = run_batch(model, stage, batch, update)
        losses.loss_sum.backward()
        return losses, model.ctc_proj.bias.grad.clone()

    frames, by_frames = gradient(1, batch | {"frame_labels": frame_labels})
    model.train()
    logits = model(
        **{k: batch[k] for k in ("input_values", "attention_mask")},
        **stage.draws(batch, Step(update=1, shared=torch.Generator())),
    ).ctc_logits
    own = torch.nn.functional.cross_entropy(logits[1, :4], frame_labels[1, :4], reduction="sum")
    assert frames.logs["loss/frame"] == (pytest.approx(own.item(), rel=1e-5), 4)
    share = int((batch["labels"] != IGNORED_LABEL).sum()) / 4
    wanted = torch.autograd.grad(share * own, model.ctc_proj.bias)[0]
    assert torch.allclose(by_frames, wanted, atol=1e-6)
    assert "loss/ctc" in frames.logs
    # Behind the start, and where no phone times are known, it is CTC.
    later, by_ctc = gradient(2, batch | {"frame_labels": frame_labels})
    assert "loss/frame" not in later.logs
    assert not torch.allclose(by_ctc, by_frames, atol=1e-3)
    assert "loss/frame" not in gradient(1, batch)[0].logs


def test_blanks_are_counted_in_labelled_rows_only():
    model = rig.tiny_pretrainer()
    stage = make_stage(model)
    batch = rig.collate(rig.utterances(3))
    batch["labels"][1:] = IGNORED_LABEL
    frames = model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1])
    assert run_batch(model, stage, batch).logs["blank_ratio"][1] == frames[0]


def test_a_foreign_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"symbol for each of the head's 7 outputs, but has 5"):
        make_stage(rig.tiny_pretrainer(num_ctc_classes=7))


def test_a_label_without_an_output_is_refused():
    model = rig.tiny_pretrainer()
    batch = rig.collate(rig.utterances(2))
    batch["labels"][0, 0] = 5
    with pytest.raises(ValueError, match=r"utterance-0: `labels` must lie in \[0, 4\]"):
        run_batch(model, make_stage(model), batch)


# ---- collapse

FINE = {"contrastive_accuracy": 0.5, "loss/contrastive": 1.0}
SHORTCUT = {"contrastive_accuracy": 0.999, "loss/contrastive": 0.01}
ALIVE = {CODES: torch.tensor([[5.0, 5, 5, 5], [9.0, 1, 1, 9]])}
DEAD = {CODES: torch.tensor([[20.0, 0, 0, 0], [19.0, 1, 0, 0]])}


def test_dead_codes_and_perplexity_are_those_since_the_last_line():
    values = make_stage().review(1, FINE, DEAD).values
    assert (values["dead_codes/0"], values["dead_codes/1"]) == (3, 2)
    share = 1 / 20
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert values["code_perplexity"] == pytest.approx(1 + math.exp(entropy), rel=1e-4)


@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [
        (
            FINE,
            DEAD,
            r"`code_perplexity` must be at least 4, but is 2\.2\d, .* has collapsed; raise `objective.div",
        ),
        (SHORTCUT, ALIVE, r"`contrastive_accuracy` must be at most 0.98, but is 0.999 .* mask longer spans"),
    ],
)
def test_a_line_that_looks_like_a_collapse_says_what_to_do(values, counts, message):
    stage = make_stage(health=HealthSettings(patience=2, grace_updates=10))
    assert stage.patience == 2
    assert stage.review(10, values, counts).suspicion is None, "in the time of grace"
    assert stage.review(12, FINE, ALIVE).suspicion is None
    suspicion = stage.review(11, values, counts).suspicion
    assert suspicion is not None
    assert re.search(message, suspicion)


def test_high_accuracy_at_a_real_loss_is_no_collapse():
    stage = make_stage(health=HealthSettings(patience=1, grace_updates=0))
    assert stage.review(1, SHORTCUT | {"loss/contrastive": 0.5}, ALIVE).suspicion is None


class Sick(PretrainingStage):
    """Its codes are dead at update 2 and from the fourth on."""

    def review(self, update, values, counts):
        return super().review(update, values, DEAD if update == 2 or update > 3 else counts)


def train_sick(place, *, patience=2, **settings):
    model = rig.tiny_pretrainer()
    health = HealthSettings(patience=patience, grace_updates=0, min_perplexity=1.2)
    return rig.train(place, model=model, stage=rig.make_stage(model, Sick, health=health), **settings)


def test_a_collapse_that_lasts_stops_the_run_and_keeps_its_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"stopped at update 5: `code_perplexity` .* Checkpoints stay"):
        train_sick(tmp_path, schedule={"num_updates": 9}, runtime={"save_every": 2})
    assert load_state(tmp_path / LAST).update == 4, "once may be chance"
    assert lines(tmp_path)[-1]["update"] == 5


def test_a_resumed_run_remembers_that_it_was_suspected(tmp_path):
    train_sick(tmp_path, schedule={"num_updates": 4})
    assert load_state(tmp_path / LAST).num_suspect == 1
    with pytest.raises(ValueError, match="stopped at update 5:"):
        train_sick(tmp_path, schedule={"num_updates": 9}, resume=True)


# ---- validation


def test_dev_transcripts_are_recognised_without_masks_or_replacement():
    model = rig.tiny_pretrainer().eval()
    stage = make_stage(model)
    batch = rig.collate(rig.utterances(3))
    with torch.no_grad():
        one, other = stage.observe(model, batch), stage.observe(model, batch)
        logits = model(batch["input_values"], attention_mask=batch["attention_mask"]).ctc_logits
    assert one == other
    frames = model.frame_lengths(batch["num_samples"], batch["input_values"].shape[1]).tolist()
    blanks = [int((row[:length].argmax(-1) == 0).sum()) for row, length in zip(logits, frames, strict=True)]
    assert [hypothesis.num_blank for hypothesis in one[0].hypotheses] == blanks
    assert one[0].num_targets > 0


def test_observations_are_joined_by_their_weights():
    said = Hypothesis(reference=["a", "b"], symbols=["a"], loss=3.0, num_frames=10, num_blank=9)
    values = make_stage().summarise([
        Observation(hypotheses=[said], contrastive_loss=6.0, num_correct=1.0, num_targets=3.0),
        Observation(hypotheses=[], contrastive_loss=2.0, num_correct=1.0, num_targets=1.0),
    ])
    assert values == {
        "per": 0.5,
        "loss/ctc": 1.5,
        "blank_ratio": 0.9,
        "loss/contrastive": 2.0,
        "contrastive_accuracy": 0.5,
    }


def test_settings_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match=r"the Gumbel temperature must not rise"):
        PretrainObjectiveSettings(temperature_start=0.5, temperature_end=1.0)
    temperatures = [PretrainObjectiveSettings().temperature(update) for update in range(0, 700_000, 50_000)]
    assert all(later <= earlier for earlier, later in pairwise(temperatures))
