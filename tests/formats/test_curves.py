import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.formats.curves import MAX_RUNS, draw_curves, running_mean, short_number
from unispeech.formats.quantities import QUANTITIES, choose, in_order, panel_of, quantity_of
from unispeech.formats.run_log import Curve, RunLog

TRAINING = [
    *("loss", "loss/contrastive", "loss/diversity", "loss/ctc", "contrastive_accuracy", "contrastive_chance"),
    *("code_perplexity", "prob_perplexity", "dead_codes/0", "dead_codes/1", "masked_fraction"),
    *("equal_negatives", "blank_ratio", "temperature", "lr", "grad_norm", "audio_seconds_per_second"),
    *("waiting_fraction", "padding_fraction", "something_new"),
]
DEV = ["dev/per", "dev/loss/contrastive", "dev/contrastive_accuracy"]


def curve(values) -> Curve:
    values = np.asarray(values, dtype=float)
    updates = 100.0 * np.arange(1, len(values) + 1)
    return Curve(updates=updates, hours=updates / 50, values=values)


def run(directory="runs/a", *, num_lines=30, **curves) -> RunLog:
    if not curves:
        random = np.random.default_rng(len(directory))
        curves = {name: random.uniform(0.1, 0.9, num_lines) for name in TRAINING}
        curves |= {name: random.uniform(0.1, 0.9, max(num_lines // 5, 1)) for name in DEV}
    return RunLog(directory=Path(directory), curves={name: curve(values) for name, values in curves.items()})


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    from matplotlib.figure import Figure

    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: saved.append(self) or save(self, *args, **kwargs)
    )
    return saved


def draw(figures, path, *runs, **settings):
    """Draw and give back: name of the panel -> axes, and the figure."""
    draw_curves(runs, path, **settings)
    return {axes.texts[1].get_text(): axes for axes in figures[-1].axes}, figures[-1]


# -- the picture ---------------------------------------------------------------------------------------------


def test_every_quantity_has_a_panel_with_words_and_unit(tmp_path, figures):
    panels, _ = draw(figures, tmp_path / "a.png", run())
    assert set(panels) == {panel_of(name) for name in [*TRAINING, *DEV]}
    titles = {name: axes.texts[0].get_text() for name, axes in panels.items()}
    assert titles["per"] == "phone error rate (%)"
    assert titles["loss/ctc"] == "CTC loss (nats per symbol)"
    assert titles["dead_codes/1"] == "dead codes, codebook 1"
    assert titles["something_new"] == "something new"
    assert [*panels][:2] == ["per", "loss"] and [*panels][-1] == "something_new"


@pytest.mark.parametrize("num_runs", [1, 2, 9])
def test_no_two_texts_overlap(tmp_path, figures, num_runs):
    names = [f"runs/{'long-name-' * 4}{number}" for number in range(num_runs)]
    _, figure = draw(figures, tmp_path / "a.png", *map(run, names), smooth=3)
    figure.canvas.draw()
    draws = figure.canvas.get_renderer()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [(text.get_text(), text.get_window_extent(draws)) for text in texts if text.get_text()]
    assert len(boxes) > 100
    for (first, a), (second, b) in combinations(boxes, 2):
        assert not a.overlaps(b), (first, second)
    for text, box in boxes:
        assert figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1), text


def test_runs_have_a_colour_each_in_every_panel(tmp_path, figures):
    panels, figure = draw(figures, tmp_path / "a.png", run("x/one"), run("x/_two$^$"))
    runs, ways = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert runs == ["one", "_two$^$"]
    assert ways == ["training", "held-out data (dev)", "chance"]
    colours = [line.get_color() for line in figure.legends[0].get_lines()]
    assert len(set(colours)) == 2
    for axes in panels.values():
        assert {line.get_color() for line in axes.lines} == set(colours)


def test_held_out_data_chance_and_training_share_a_panel(tmp_path, figures):
    curves = {
        "contrastive_accuracy": [0.1, 0.5],
        "dev/contrastive_accuracy": [0.2, 0.4],
        "contrastive_chance": [0.01, 0.01],
    }
    panels, _ = draw(figures, tmp_path / "a.png", run(**curves))
    chance, training, dev = panels["contrastive_accuracy"].lines
    assert chance.get_linestyle() == ":"
    assert list(chance.get_ydata()) == pytest.approx([1.0, 1.0])  # percent
    assert (training.get_marker(), dev.get_marker()) == ("None", "o")
    assert [text.get_text() for text in panels["contrastive_accuracy"].texts[2:]] == ["40", "highest on dev"]


def test_the_x_axis_is_updates_or_hours(tmp_path, figures):
    panels, _ = draw(figures, tmp_path / "a.png", run(loss=[3, 2, 1]))
    assert list(panels["loss"].lines[0].get_xdata()) == [100, 200, 300]
    assert panels["loss"].get_xlabel() == "updates"
    panels, _ = draw(figures, tmp_path / "a.png", run(loss=[3, 2, 1]), x="audio")
    assert list(panels["loss"].lines[0].get_xdata()) == [2, 4, 6]
    assert panels["loss"].get_xlabel() == "hours of audio heard"


def test_smoothing_leaves_the_raw_line_faint(tmp_path, figures):
    noisy = {"loss": [1, 2, 9, 2, 1], "lr": [1, 2, 9, 2, 1], "dev/loss": [1, 2, 9]}
    panels, figure = draw(figures, tmp_path / "a.png", run(**noisy), smooth=1)
    raw, mean, dev = panels["loss"].lines
    assert raw.get_alpha() < 0.5 and mean.get_alpha() is None
    assert list(raw.get_ydata()) == [1, 2, 9, 2, 1]
    assert list(mean.get_ydata()) == pytest.approx([1, 4, 13 / 3, 4, 1])
    assert list(dev.get_ydata()) == [1, 2, 9]
    assert len(panels["lr"].lines) == 1
    assert figure.legends[1].get_texts()[0].get_text() == "training, mean of 3 log lines"


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("loss", [50, 1], "log"),
        ("loss", [5, 1], "linear"),
        ("loss", [50, -1], "linear"),
        ("loss/new", [50, 1], "log"),
        ("grad_norm", [1e6, 1e-3], "log"),
        ("lr", [1e-3, 1e-6], "linear"),
        ("dev/per", [0.9, 0.01], "linear"),
    ],
)
def test_the_scale_follows_quantity_and_range(tmp_path, figures, name, values, scale):
    panels, _ = draw(figures, tmp_path / "a.png", run(**{name: values}))
    [axes] = panels.values()
    assert axes.get_yscale() == scale


@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [7.0], [np.nan, np.nan], [1, np.nan, 2], [-3.0, -3.0], [1e30, 1e-30], [1e-12]]
)
@pytest.mark.parametrize("name", ["loss", "infeasible_fraction", "dev/per"])
def test_any_values_are_drawn(tmp_path, figures, recwarn, name, values):
    panels, _ = draw(figures, tmp_path / "a.png", run(**{name: values}), smooth=2)
    [axes] = panels.values()
    low, high = axes.get_ylim()
    assert low < high
    assert np.isfinite([low, high]).all()
    assert np.nanmin([*values, np.inf]) < 0 or low > -0.1 * high
    assert [str(warning.message) for warning in recwarn] == []


def test_a_lone_point_is_seen(tmp_path, figures):
    panels, _ = draw(figures, tmp_path / "a.png", run(loss=[1.0]))
    assert panels["loss"].lines[0].get_marker() == "o"


@pytest.mark.parametrize("ending", ["svg", "pdf", "PNG"])
def test_other_formats_are_written(tmp_path, ending):
    path = tmp_path / f"new/a.{ending}"
    draw_curves([run(loss=[2, 1])], path)
    start = {"svg": b"<?xml", "pdf": b"%PDF-", "PNG": b"\x89PNG"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == "svg":
        ElementTree.parse(path)
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_as_many_runs_as_can_be_told_apart(tmp_path, figures):
    runs = [run(f"runs/{number}", loss=[2, 1]) for number in range(MAX_RUNS + 1)]
    panels, _ = draw(figures, tmp_path / "a.png", *runs[:-1])
    looks = {(line.get_color(), str(line._dash_pattern)) for line in panels["loss"].lines}
    assert len(looks) == MAX_RUNS
    for wrong in (runs, []):
        with pytest.raises(ValueError, match=rf"`runs` must be 1 to {MAX_RUNS}, .* but are {len(wrong)}\."):
            draw_curves(wrong, tmp_path / "b.png")


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in \.png, \.svg, \.pdf, but is .*a\.gif"):
        draw_curves([run()], tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"`smooth` must not be negative, but is -1\."):
        draw_curves([run()], tmp_path / "a.png", smooth=-1)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"drawing needs matplotlib; .*unispeech\[draw\]"):
        draw_curves([run()], tmp_path / "a.png")


def test_a_failing_disk_leaves_the_old_picture(tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_curves([run(loss=[1, 2])], tmp_path / "a.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_matplotlibs_settings_and_torch_are_left_alone(tmp_path):
    code = (
        "import sys, matplotlib, numpy as np\n"
        "before = matplotlib.rcParams.copy()\n"
        "from pathlib import Path\n"
        "from unispeech.formats.curves import draw_curves\n"
        "from unispeech.formats.run_log import Curve, RunLog\n"
        "x = np.arange(3.0)\n"
        "curves = {'loss': Curve(updates=x, hours=x, values=x)}\n"
        "draw_curves([RunLog(directory=Path('a'), curves=curves)], sys.argv[1])\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert not {'matplotlib.pyplot', 'torch', 'transformers', 'lhotse'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True)


# -- numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (250, "250"), (0.75, "0.75"), (0.005, "0.005"), (0.00025, "2.5e-4"), (-0.001, "-1e-3")],
)
def test_numbers_are_short(value, text):
    assert short_number(value) == text


@given(
    st.lists(st.floats(-100, 100) | st.just(np.nan), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_the_running_mean_is_that_of_the_neighbours(values, num_neighbours):
    values = np.array(values, dtype=float)
    means = running_mean(values, num_neighbours)
    for place, mean in enumerate(means):
        reach = min(num_neighbours, place, len(values) - 1 - place)
        around = values[place - reach : place + reach + 1]
        around = around[np.isfinite(around)]
        expected = around.mean() if len(around) else np.nan
        assert mean == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_running_mean_does_not_bend_a_slope():
    slope = np.linspace(5.0, 1.0, 20)
    np.testing.assert_allclose(running_mean(slope, 7), slope)


# -- names ---------------------------------------------------------------------------------------------------


def test_parts_take_after_the_whole():
    assert quantity_of("per/it").label == "phone error rate, it"
    assert quantity_of("per/it").unit == "%"
    assert quantity_of("loss/feature_penalty").label == "loss, feature penalty"
    assert quantity_of("loss/ctc/a/b").label == "CTC loss, a/b"
    assert quantity_of("new/x_y").label == "new/x y"
    assert quantity_of("loss") is QUANTITIES["loss"]


def test_panels_have_an_order():
    assert in_order(["zeta", "lr", "loss/ctc", "loss/new", "alpha", "loss", "per/it", "per"]) == [
        *("per", "per/it", "loss", "loss/new", "loss/ctc", "lr", "alpha", "zeta")
    ]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ([], {*TRAINING, *DEV}),
        (["per"], {"dev/per"}),
        (["dev/per"], {"dev/per"}),
        (["loss"], {"loss"}),
        (["loss/contrastive"], {"loss/contrastive", "dev/loss/contrastive"}),
        (["dev/loss/contrastive", "lr"], {"dev/loss/contrastive", "lr"}),
        (["dead_codes"], {"dead_codes/0", "dead_codes/1"}),
        (["dead_codes/1"], {"dead_codes/1"}),
        (["contrastive_chance"], {"contrastive_chance"}),
        (
            ["contrastive_accuracy"],
            {"contrastive_accuracy", "contrastive_chance", "dev/contrastive_accuracy"},
        ),
    ],
)
def test_quantities_are_chosen_by_panel_group_or_name(only, names):
    assert choose([*TRAINING, *DEV], only) == names


def test_an_unknown_quantity_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"`only` must name .*, but has `los`; did you mean `loss`\?"):
        choose(TRAINING, ["los"])
    with pytest.raises(ValueError, match=r"but has `zzzz`; there are loss, lr\."):
        choose(["lr", "loss"], ["loss", "zzzz"])
