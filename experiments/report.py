"""Results -> docs/results.md and the picture of the curves."""

from collections.abc import Sequence
from pathlib import Path

from experiments.cost import expected_seconds
from experiments.plan import CTC_ALONE, LIGHT, SYSTEMS, ablations
from experiments.results import Results
from experiments.runner import Workshop
from experiments.settings import Settings
from experiments.statistics import Estimate, Scored, per, reduction
from experiments.steps import Step

TITLES = {
    "scratch": "from scratch",
    "ssl": "contrast alone (SSL)",
    "ctc": "CTC on English (transfer)",
    "uni1": "UniSpeech stage 1",
    LIGHT.name: "stage 1, light",
    "uni12": "UniSpeech stages 1 + 2",
    "mixed": "mixed run",
}
PAPER = {"ssl": "13.4 %", "ctc": "17.8 %"}
"""The largest relative reductions that the paper states, averaged over its languages."""

HEALTH = {
    "contrastive_accuracy": "contrastive accuracy",
    "contrastive_chance": "chance",
    "code_perplexity": "code perplexity",
    "blank_ratio": "blanks",
    "dev/per": "dev PER (source)",
}


def write_report(
    size: str, settings: Settings, steps: Sequence[Step], results: Results, path: Path, picture: Path
) -> None:
    """Write the page.

    Args:
        size: Name of the size.
        settings: What it states.
        steps: Its plan.
        results: What has been measured.
        path: The page, overwritten.
        picture: The picture of the curves, which the page shows if it is there.
    """
    groups = {
        "Synthetic speech": list(settings.corpora.synthetic),
        "Human speech": [f"{name}-real" for name in settings.corpora.real],
    }
    parts = [_head(size, settings, steps, results)]
    for title, targets in groups.items():
        parts.append(_rates(title, targets, steps, results))
    parts.append(_reductions(groups, steps, results))
    if settings.corpora.shift:
        parts.append(_shift(settings, steps, results))
    parts += [_ablations(settings, steps, results), _health(steps, results), _failures(steps, results)]
    parts += [_cost(steps, results), _commands(size)]
    if picture.exists():
        parts.append(_curves(path, picture))
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def draw_picture(steps: Sequence[Step], workshop: Workshop, picture: Path) -> bool:
    """Draw the curves of the first target's trainings, of the first seed that has any.

    Args:
        steps: The plan.
        workshop: Where the runs are.
        picture: Where to.

    Returns:
        Whether there was anything to draw.
    """
    from unispeech.formats.curves import draw_curves
    from unispeech.formats.run_log import RunLog, read_log

    first = next(step.role for step in steps if step.kind == "score")
    assert first is not None
    logs = []
    for step in steps:
        role = step.role
        if role is None or step.kind == "score" or workshop.state(step) != "done":
            continue
        is_tuned = role.system.endswith("-tuned") and role.system.removesuffix("-tuned") in SYSTEMS
        if role.seed == first.seed and role.target == first.target and is_tuned:
            log = read_log(workshop.directory(step) / "run")
            logs.append(RunLog(directory=Path(role.system.removesuffix("-tuned")), curves=log.curves))
    if logs:
        draw_curves(logs, picture, smooth=2, only=("per", "loss/ctc"))
    return bool(logs)


def _head(size: str, settings: Settings, steps: Sequence[Step], results: Results) -> str:
    corpora, training, tuning = settings.corpora, settings.pretraining, settings.finetuning
    scores = [step for step in steps if step.kind == "score"]
    done = [step for step in scores if (results.of(step) or {}).get("result")]
    config = settings.model.config or {}
    command = f"`python -m experiments report --size {size}`"
    missing = f"`python -m experiments plan --size {size}` lists what is missing"
    about = [
        f"Written by {command} from `experiments/results/{size}.json`.",
        f"**{len(done)} of {len(scores)} scores have been measured.** An empty cell was not run;",
        f"{missing}.",
        "",
        f"Size `{size}`: {config.get('num_hidden_layers')} layers of {config.get('hidden_size')}.",
        f"The source is English, {corpora.source_hours:g} h, synthetic, with phones. A target has",
        f"{corpora.target_hours:g} h of unlabelled speech if synthetic, all there is if human, and",
        f"{corpora.labelled_minutes:g} minutes with phones. Every pre-training has {training.updates:,}",
        f"updates of {training.batch_seconds:g} s, whatever the system; then all get the same fine-tuning,",
        f"{tuning.updates:,} updates of {tuning.batch_seconds:g} s of the labelled minutes"
        f" ({tuning.human_updates or tuning.updates:,} on human speech).",
        "The model after the last update is scored; nothing is chosen by validation.",
        "",
        f"Phone error rate (PER) in % on {corpora.test_minutes:g} minutes of phrases that are heard in no",
        "training, in synthetic speech by voices that are heard in no training either; human corpora have",
        "one or two speakers each, so there only the phrases are new. Mean over the seeds that were run, and",
        "the 95 % bootstrap interval over utterances.",
    ]
    if training.frame_updates or tuning.frame_updates:
        about += [
            "",
            "CTC from random weights says nothing but blanks for hundreds of updates at this size. So",
            "where CTC learns from synthetic speech, in all systems alike, it has a start: the phone of",
            "every frame by cross-entropy, from the times that the synthesiser gives, in the first",
            f"{training.frame_updates:,} updates of a pre-training and {tuning.frame_updates:,} of a"
            " fine-tuning. Human speech has no phone times, so its fine-tuning is CTC alone.",
        ]
    share = f"{settings.design.stage1_share:.0%}".replace("%", " %")
    rows = [
        ["system", "pre-training"],
        [TITLES["scratch"], "none"],
        [TITLES["ssl"], "contrastive, on unlabelled English and target, language exponent 0.5"],
        [TITLES["ctc"], "CTC on labelled English"],
        [TITLES["uni1"], "CTC and contrast (0.5) with replacement (0.5) on labelled English"],
        [
            TITLES[LIGHT.name],
            "the same with contrast of 0.25, without replacement, behind masks of 0.1",
        ],
        [TITLES["uni12"], f"{share} of the updates as stage 1, the rest contrastive on the target"],
        [TITLES["mixed"], "half of the batches labelled English as in stage 1, half unlabelled target"],
    ]
    return "\n".join(["# Results: does UniSpeech pay?", "", *about, "", _table(rows)])


def _rates(title: str, targets: list[str], steps: Sequence[Step], results: Results) -> str:
    if not targets:
        return ""
    rows = [["target", *(TITLES[name] for name in SYSTEMS), "seeds"]]
    for target in targets:
        found = {name: results.scored(list(steps), target, name) for name in SYSTEMS}
        rows.append([_target(target), *(_cell(scored) for scored in found.values()), _seeds(found.values())])
    means = ["mean of complete rows"]
    complete = [
        target for target in targets if all(results.scored(list(steps), target, name) for name in SYSTEMS)
    ]
    for name in SYSTEMS:
        all_scored = [results.scored(list(steps), target, name) for target in complete]
        present = [scored for scored in all_scored if scored]
        means.append(_percent(per(present)) if present else "")
    rows.append([*means, str(len(complete)) + " targets"])
    return f"## {title}: PER (%)\n\n" + _table(rows)


def _reductions(groups: dict[str, list[str]], steps: Sequence[Step], results: Results) -> str:
    rows = [["system", *(f"{title}, against {TITLES[ref]}" for title in groups for ref in PAPER)]]
    for name in ("uni1", LIGHT.name, "uni12", "mixed"):
        cells = [
            _reduction(name, reference, targets, steps, results)
            for targets in groups.values()
            for reference in PAPER
        ]
        rows.append([TITLES[name], *cells])
    rows.append(["the paper, at most", *(PAPER[ref] for _ in groups for ref in PAPER)])
    return (
        "## Relative reduction of the mean PER\n\nOver the targets and seeds that both systems were run on; "
        "negative: more errors.\n\n" + _table(rows)
    )


def _reduction(
    name: str,
    reference: str,
    targets: Sequence[str],
    steps: Sequence[Step],
    results: Results,
    among: Sequence[int] | None = None,
) -> str:
    """Over the seeds that both systems were run on; of these only some, where they are named."""
    pairs = []
    for target in targets:
        one, other = (results.scored(list(steps), target, system) for system in (name, reference))
        seeds = set(one.errors) & set(other.errors) if one and other else set()
        if one and other and (seeds := seeds if among is None else seeds & set(among)):
            pairs.append((one.only(sorted(seeds)), other.only(sorted(seeds))))
    if not pairs:
        return ""
    return _percent(reduction([one for one, _ in pairs], [other for _, other in pairs])) + " %"


def _shift(settings: Settings, steps: Sequence[Step], results: Results) -> str:
    target = f"{settings.corpora.source}-shift"
    rows = [["system", "PER (%)", "relative reduction against SSL", "seeds"]]
    for name in SYSTEMS:
        scored = results.scored(list(steps), target, name)
        change = "" if name == "ssl" else _reduction(name, "ssl", [target], steps, results)
        rows.append([TITLES[name], _cell(scored), change, _seeds([scored])])
    low, high = settings.corpora.shift_rate_range
    quiet, loud = settings.corpora.shift_snr_db
    about = [
        "Clean labelled English; unlabelled and test speech of the same language through a telephone (300 to",
        f"3,400 Hz, mu-law), with noise of {quiet:g} to {loud:g} dB, at {low} to {high} words a minute.",
        "Fine-tuning on all of the clean transcripts. The paper: 6 % relative (words, not phones).",
        "Reductions are over the seeds that both systems were run on.",
    ]
    return "\n".join(["## Another domain", "", *about, "", _table(rows)])


def _ablations(settings: Settings, steps: Sequence[Step], results: Results) -> str:
    design = settings.design
    tables = []
    # The ablation has one seed, the comparison more; here the first alone counts.
    seed = design.seeds[0]
    for title, variants in ablations(settings).items():
        rows = [[title, *variants]]
        cells = []
        for variant in variants.values():
            scored = results.scored(list(steps), design.ablation_target, variant.name)
            cells.append(_cell(scored.only([seed]) if scored and seed in scored.errors else None))
        rows.append(["PER (%)", *cells])
        for name, reference in (("weight 1", CTC_ALONE.name), ("transfer", "ctc")):
            names = [variant.name for variant in variants.values()]
            target = [design.ablation_target]
            changes = [
                "" if n == reference else _reduction(n, reference, target, steps, results, [seed])
                for n in names
            ]
            rows.append([f"fewer errors than {name}", *changes])
        tables.append(_table(rows))
    head = f"## Ablation of stage 1, on {design.ablation_target}, seed {seed}"
    about = "Weight 1 is stage 1 without contrast: CTC behind the same masks, with the same replacement."
    return "\n\n".join([head, about, *tables])


def _health(steps: Sequence[Step], results: Results) -> str:
    rows = [["pre-training", *HEALTH.values()]]
    for step in steps:
        outcome = results.of(step)
        role = step.role
        if step.kind == "score" or role is None or role.system.endswith("-tuned") or not outcome:
            continue
        values = outcome.get("result", {})
        rows.append([step.name, *(f"{values[name]:.3g}" if name in values else "" for name in HEALTH)])
    return "## Health at the last update\n\n" + _table(rows) if len(rows) > 1 else ""


def _failures(steps: Sequence[Step], results: Results) -> str:
    lines = [
        f"* {step.name}: {outcome['message']}"
        for step in steps
        if (outcome := results.of(step)) and "message" in outcome
    ]
    return "## Failed\n\n" + "\n".join(lines) if lines else ""


def _cost(steps: Sequence[Step], results: Results) -> str:
    costs = expected_seconds(steps, results)
    rows = [["steps", "done", "wall time", "seconds each", "processor seconds each", "to do, expected"]]
    titles = {
        "corpus": "corpora",
        "pretrain": "pre-trainings",
        "finetune": "CTC trainings",
        "score": "scores",
    }
    for kind, title in titles.items():
        own = [costs[step.label] for step in steps if step.kind == kind]
        done = [seconds for seconds, is_measured in own if is_measured]
        rest = sum(seconds for seconds, is_measured in own if not is_measured)
        each = f"{sum(done) / len(done):.0f}" if done else ""
        outcomes = [results.of(step) for step in steps if step.kind == kind]
        used = [outcome["cpu_seconds"] for outcome in outcomes if outcome and "cpu_seconds" in outcome]
        used_each = f"{sum(used) / len(used):.0f}" if used else ""
        rows.append([
            title,
            f"{len(done)} of {len(own)}",
            f"{sum(done) / 60:.0f} min",
            each,
            used_each,
            f"{rest / 60:.0f} min",
        ])
    machines = sorted({
        f"{outcome['machine']}, {outcome['jobs']} steps at a time"
        for step in steps
        if (outcome := results.of(step)) and "machine" in outcome
    })
    where = "Measured on: " + "; ".join(machines) + ", beside what else it did.\n\n" if machines else ""
    return "## Cost\n\n" + where + _table(rows)


def _commands(size: str) -> str:
    return f"""## Commands

    python -m experiments plan --size {size}                 # all steps, done or not, with their cost
    python -m experiments run --size {size} --minutes 50     # stops by itself; the next call goes on
    python -m experiments run --size {size}                  # to the end
    python -m experiments report --size {size}               # this page"""


def _curves(path: Path, picture: Path) -> str:
    return f"## Curves of fine-tuning on the first target\n\n![curves]({picture.relative_to(path.parent)})"


def _cell(scored: Scored | None) -> str:
    return _percent(per([scored])) if scored else ""


def _percent(estimate: Estimate) -> str:
    value, low, high = (100 * number for number in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _seeds(all_scored: object) -> str:
    counts = [len(scored.errors) if scored else 0 for scored in all_scored]  # type: ignore[attr-defined]
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _target(name: str) -> str:
    return f"{name.removesuffix('-real')} (human)" if name.endswith("-real") else name


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
