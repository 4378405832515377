"""Times and segments from the command line: spikes or extents, pauses, the intervals of a TextGrid."""

import json

import pytest

from tiny_recognisers import save_recogniser, write_babble
from unispeech import Transcriber
from unispeech.cli import main
from unispeech.formats.textgrid import Interval, IntervalTier, Point, PointTier, TextGrid, write_long
from unispeech.formats.textgrid_reader import parse_textgrid, read_textgrid
from unispeech.pipelines.segments import keep_within


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_recogniser(tmp_path_factory.mktemp("model") / "phones"))


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talks")
    for i, name in enumerate(["a", "sub/b"]):
        write_babble(folder / f"{name}.wav", 1.5, i)
    return folder


def tier(name, *rows):
    intervals = [Interval(start=start, end=end, label=label) for start, end, label in rows]
    return IntervalTier(name=name, start=0.0, end=1.5, intervals=intervals)


SAID = tier("said", (0.0, 0.4, "one"), (0.4, 0.9, ""), (0.9, 1.5, "two"))
NOTES = PointTier(name="notes", start=0.0, end=1.5, points=[Point(time=0.5, label="door")])
BOUNDS = [(0.0, 0.4), (0.9, 1.5)]


def write_grid(path, *tiers):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_long(TextGrid(start=0.0, end=1.5, tiers=tiers)), encoding="utf-8")
    return path


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["transcribe", *map(str, arguments)])
    return exit_.value.code


def test_extents_are_written_and_spikes_where_they_are_asked_for(capsys, model_dir, talks):
    starts = {}
    for times in ("extents", "spikes"):
        assert run(talks / "a.wav", "-m", model_dir, "-f", "json", "--times", times) == 0
        expected = Transcriber(model_dir, times=times).transcribe(talks / "a.wav")
        starts[times] = [phone["start"] for phone in json.loads(capsys.readouterr().out)["phones"]]
        assert starts[times] == pytest.approx([phone.start for phone in expected.phones], abs=1e-4)
    assert starts["extents"] != starts["spikes"]


def test_the_pause_between_segments_can_be_set(capsys, model_dir, talks):
    counts = []
    for pause in ("0.02", "5"):
        arguments = ["-m", model_dir, "-f", "json", "--times", "spikes", "--max-pause", pause]
        assert run(talks / "a.wav", *arguments) == 0
        document = json.loads(capsys.readouterr().out)
        assert " ".join(segment["text"] for segment in document["segments"]) == document["text"]
        counts.append(len(document["segments"]))
    assert counts[0] > counts[1] == 1


@pytest.mark.parametrize("format", ["TextGrid", "short-TextGrid"])
def test_intervals_are_segments_and_their_tiers_are_kept(capsys, tmp_path, model_dir, talks, format):
    grid = write_grid(tmp_path / "a.TextGrid", SAID, NOTES)
    assert run(talks / "a.wav", "-m", model_dir, "-f", format, "--segments-from", grid) == 0
    written = parse_textgrid(capsys.readouterr().out)
    assert list(written.tiers[:2]) == [SAID, NOTES]
    expected = keep_within(Transcriber(model_dir).transcribe(talks / "a.wav"), BOUNDS)
    assert [i.label for i in written.interval_tier("phones").labelled()] == expected.text.split()
    assert len(written.tiers) == 3
    assert expected.phones


def test_a_folder_has_a_textgrid_for_each_and_a_broken_one_stops_no_other(capsys, tmp_path, model_dir, talks):
    write_grid(tmp_path / "grids" / "a.TextGrid", SAID, tier("other", (0.0, 1.5, "x")))
    arguments = ["-m", model_dir, "--segments-from", tmp_path / "grids", "--tier", "said"]
    assert run(talks, *arguments, "-f", "json") == 1
    out, err = capsys.readouterr()
    [document] = [json.loads(line) for line in out.splitlines()]
    assert [(s["start"], s["end"]) for s in document["segments"]] == BOUNDS
    assert err.startswith(
        f"unispeech: {tmp_path / 'grids' / 'sub' / 'b.TextGrid'}: no such file or directory"
    )
    assert err.count("\n") == 1
    write_grid(tmp_path / "grids" / "sub" / "b.TextGrid", SAID)
    assert run(talks, *arguments, "-f", "TextGrid", "-o", tmp_path / "out") == 0
    assert [t.name for t in read_textgrid(tmp_path / "out" / "a.TextGrid").tiers] == [
        "said",
        "other",
        "phones",
    ]
    assert [t.name for t in read_textgrid(tmp_path / "out" / "sub" / "b.TextGrid").tiers] == [
        "said",
        "phones",
    ]


@pytest.mark.parametrize(
    ("tiers", "arguments", "status", "message"),
    [
        ([SAID], ["--tier", "sayd"], 1, ": `--tier` must be that of a tier of intervals (said)"),
        ([SAID, tier("x")], [], 1, ": must have one tier of intervals, but has said, x; name one by --tier."),
        ([NOTES], [], 1, ": must have one tier of intervals, but has none; name one"),
        ([tier("x", (0.0, 1.5, " "))], [], 1, ": tier 'x' must hold an interval with a label"),
        ([tier("x", (0.0, 1.0, "a"), (0.9, 1.5, "b"))], [], 1, "must start where interval 1 ends (1)"),
        ([tier("x", (2.0, 3.0, "a"))], [], 1, "a.wav: segments must begin within the recording (1.50 s)"),
        ([SAID], ["sub/b.wav"], 2, "`--segments-from` must be a folder for 2 recordings, but is"),
        ([SAID], ["--max-pause", "-1"], 2, "`max_pause` must not be negative, but is -1.0."),
        (None, ["--tier", "said"], 2, "`--segments-from` must name a TextGrid with the tier 'said', but is"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    capsys, monkeypatch, tmp_path, model_dir, talks, tiers, arguments, status, message
):
    monkeypatch.chdir(talks)
    if tiers is not None:
        arguments = [*arguments, "--segments-from", write_grid(tmp_path / "g.TextGrid", *tiers)]
    assert run("a.wav", *arguments, "-m", model_dir) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
