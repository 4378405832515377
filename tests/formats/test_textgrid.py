import codecs
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid as praatio
from pympi.Praat import TextGrid as PympiTextGrid

from odd_transcripts import ODD, transcripts
from unispeech.errors import ManifestError
from unispeech.formats import FORMATS
from unispeech.formats.spans import tiers
from unispeech.formats.textgrid import (
    Interval,
    IntervalTier,
    Point,
    PointTier,
    TextGrid,
    make_textgrid,
    to_short_textgrid,
    to_textgrid,
    write_long,
    write_short,
)
from unispeech.formats.textgrid_reader import parse_textgrid, read_textgrid
from unispeech.results import Phone, Transcript, Word

# Laid out as Praat lays out its own files, trailing spaces included.
PRAATS = (Path(__file__).parent / "praat_layout.TextGrid").read_text(encoding="utf-8")
GRID = TextGrid(
    start=0.0,
    end=2.3000000000000003,
    tiers=[
        IntervalTier(
            name='said "aloud"',
            start=0.0,
            end=2.3000000000000003,
            intervals=[
                Interval(start=0.0, end=0.5, label=""),
                Interval(start=0.5, end=1.25, label='he said "no"\ntwice! [1] 7'),
                Interval(start=1.25, end=2.3000000000000003, label=" "),
            ],
        ),
        PointTier(name="clicks", start=0.0, end=2.3000000000000003, points=[Point(time=1.5, label="ǃ")]),
    ],
)
SHORT = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
2.3
<exists>
1
"IntervalTier"
"words"
0
2.3
2
0
1.5
"a"
1.5
2.3
""
"""


def spoken(**fields):
    phones = [
        Phone(phone="a", start=0.1, end=0.25, score=1.0),
        Phone(phone='"', start=0.25, end=0.25, score=1.0),
        Phone(phone="t͡ʃ", start=0.25, end=1.0, score=1.0),
    ]
    return Transcript(**{"audio": "a.wav", "duration": 1.00003, "text": "", "phones": phones, **fields})


def rows(tier):
    return [(interval.start, interval.end, interval.label) for interval in tier.intervals]


# -- writing -------------------------------------------------------------------------------------------------


def test_phones_and_what_is_between_fill_the_tier():
    grid = make_textgrid(spoken())
    assert (grid.start, grid.end) == (0.0, 1.00003)
    [tier] = grid.tiers
    assert rows(tier) == [
        (0.0, 0.1, ""),
        (0.1, 0.25, "a"),
        (0.25, 0.2501, '"'),  # a phone of no length gets a tenth of a millisecond
        (0.2501, 1.0, "t͡ʃ"),
        (1.0, 1.00003, ""),
    ]
    assert tier.name == "phones"
    assert FORMATS["TextGrid"] is to_textgrid
    assert FORMATS["short-TextGrid"] is to_short_textgrid


def test_words_stand_over_phones():
    grid = make_textgrid(spoken(words=[Word(word="ab", start=0.1, end=1.0, score=1.0)]))
    assert [tier.name for tier in grid.tiers] == ["words", "phones"]
    assert rows(grid.tiers[0]) == [(0.0, 0.1, ""), (0.1, 1.0, "ab"), (1.0, 1.00003, "")]


@pytest.mark.parametrize("duration", [0.0, 1.0])
def test_silence_is_one_empty_interval(duration):
    [tier] = make_textgrid(spoken(phones=[], duration=duration)).tiers
    assert rows(tier) == [(0.0, max(duration, 0.0001), "")]


def test_tiers_of_an_older_textgrid_are_kept():
    grid = make_textgrid(spoken(), kept=GRID)
    assert list(grid.tiers[:2]) == GRID.tiers
    assert grid.end == GRID.end == grid.tiers[2].end
    again = make_textgrid(spoken(duration=5.0), kept=grid)
    assert [tier.name for tier in again.tiers] == ['said "aloud"', "clicks", "phones", "phones 2"]
    assert again.end == 5.0
    head = PRAATS.split("item [1]")[0].replace("size = 2", "size = 3")
    assert to_textgrid(spoken(), kept=GRID).startswith(head)
    assert PRAATS.split("item []: ")[1].rstrip("\n") in to_textgrid(spoken(), kept=GRID)


def test_a_grid_that_starts_late_holds_the_tier_that_is_laid_below():
    late = TextGrid(start=1.0, end=2.0, tiers=[])
    assert make_textgrid(spoken(), kept=late).start == 0.0


def test_no_number_has_an_exponent():
    for text in (
        to_textgrid(spoken(duration=1e-05, phones=[])),
        to_short_textgrid(spoken(duration=1e-05, phones=[])),
    ):
        assert "0.00001" in text
        assert "e-" not in text


def test_tiers_end_together_where_a_recording_is_shorter_than_its_phones():
    phones = [Phone(phone=phone, start=0.0, end=0.0, score=1.0) for phone in "ab"]
    words = [Word(word="ab", start=0.0, end=0.0, score=1.0)]
    grid = make_textgrid(spoken(duration=0.0, phones=phones, words=words))
    assert [tier.end for tier in grid.tiers] == [grid.end] * 2 == [0.0002] * 2
    assert rows(grid.tiers[0]) == [(0.0, 0.0001, "ab"), (0.0001, 0.0002, "")]


@settings(max_examples=50)
@given(transcripts())
def test_what_is_written_is_read_back_equal(transcript):
    grid = make_textgrid(transcript)
    assert parse_textgrid(to_textgrid(transcript)) == grid
    assert parse_textgrid(to_short_textgrid(transcript)) == grid
    for tier, spans in zip(grid.tiers, tiers(transcript).values(), strict=True):
        assert tier.intervals[0].start == 0.0 == grid.start
        assert tier.intervals[-1].end == tier.end == grid.end
        assert all(interval.start < interval.end for interval in tier.intervals)
        assert all(before.end == after.start for before, after in pairwise(tier.intervals))
        assert [i.label for i in tier.intervals if i.label] == [span.label for span in spans if span.label]


labels = st.sampled_from([*ODD, "", " a ", "a\nb", "!", "7"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\r"), max_size=4
)
numbers = st.floats(0, 1e6)
point_tiers = st.builds(
    PointTier,
    name=labels,
    start=numbers,
    end=numbers,
    points=st.lists(st.builds(Point, time=numbers, label=labels), max_size=3),
)


@st.composite
def interval_tiers(draw):
    edges = sorted(draw(st.sets(numbers, min_size=1, max_size=4)))
    intervals = [Interval(start=a, end=b, label=draw(labels)) for a, b in pairwise(edges)]
    return IntervalTier(name=draw(labels), start=edges[0], end=edges[-1], intervals=intervals)


@settings(max_examples=50)
@given(st.lists(point_tiers | interval_tiers(), max_size=3), st.sampled_from([write_long, write_short]))
def test_any_textgrid_is_read_back_equal(tiers, write):
    grid = TextGrid(start=0.0, end=1.0, tiers=tiers)
    assert parse_textgrid(write(grid) + "\n") == grid


# -- other programs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [to_textgrid, to_short_textgrid])
@settings(max_examples=25)
@given(transcript=transcripts())
def test_praatio_reads_what_is_written(tmp_path_factory, write, transcript):
    path = tmp_path_factory.mktemp("praatio") / "a.TextGrid"
    path.write_text(write(transcript) + "\n", encoding="utf-8", newline="")
    found = praatio.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")
    grid = make_textgrid(transcript)
    assert (found.minTimestamp, found.maxTimestamp) == (grid.start, grid.end)
    assert list(found.tierNames) == [tier.name for tier in grid.tiers]
    for tier in grid.tiers:
        entries = [(entry.start, entry.end, entry.label) for entry in found.getTier(tier.name).entries]
        # praatio takes the white space around labels off.
        assert entries == [(start, end, label.strip()) for start, end, label in rows(tier)]


@pytest.mark.parametrize("write", [to_textgrid, to_short_textgrid])
@settings(max_examples=25)
@given(transcript=transcripts())
def test_pympi_reads_what_is_written(tmp_path_factory, write, transcript):
    path = tmp_path_factory.mktemp("pympi") / "a.TextGrid"
    path.write_text(write(transcript) + "\n", encoding="utf-8", newline="")
    found = PympiTextGrid(str(path), codec="utf-8")
    grid = make_textgrid(transcript)
    assert [tier.name for tier in found.get_tiers()] == [tier.name for tier in grid.tiers]
    for theirs, ours in zip(found.get_tiers(), grid.tiers, strict=True):
        assert [(a, b, label) for a, b, label in theirs.get_all_intervals()] == rows(ours)


@settings(max_examples=25)
@given(transcript=transcripts())
def test_what_praatio_writes_is_read(tmp_path_factory, transcript):
    path = tmp_path_factory.mktemp("praatio") / "a.TextGrid"
    path.write_text(to_textgrid(transcript) + "\n", encoding="utf-8", newline="")
    theirs = praatio.openTextgrid(str(path), includeEmptyIntervals=True)
    for form in ("long_textgrid", "short_textgrid"):
        theirs.save(str(path), format=form, includeBlankSpaces=True)
        found = read_textgrid(path)
        for tier, expected in zip(found.tiers, make_textgrid(transcript).tiers, strict=True):
            assert [label for *_, label in rows(tier)] == [label.strip() for *_, label in rows(expected)]
            assert [start for start, *_ in rows(tier)] == pytest.approx([s for s, *_ in rows(expected)])


# -- reading -------------------------------------------------------------------------------------------------


def test_a_file_of_praats_comes_out_byte_by_byte():
    assert parse_textgrid(PRAATS) == GRID
    assert write_long(GRID) + "\n" == PRAATS
    assert parse_textgrid(write_short(GRID)) == GRID


@pytest.mark.parametrize(
    "content",
    [
        PRAATS.encode(),
        codecs.BOM_UTF8 + PRAATS.encode(),
        PRAATS.encode("utf-16"),
        codecs.BOM_UTF16_BE + PRAATS.encode("utf-16-be"),
        PRAATS.encode("utf-16-be"),
        PRAATS.encode("utf-16-le"),
        PRAATS.replace("\n", "\r\n").encode("utf-16"),
        PRAATS.replace("\n", "\r").encode(),
    ],
)
def test_encodings_and_line_ends(tmp_path, content):
    (tmp_path / "a.TextGrid").write_bytes(content)
    assert read_textgrid(tmp_path / "a.TextGrid") == GRID


def test_old_and_loose_files_are_read():
    old = SHORT.replace('"ooTextFile"', '"ooTextFile short"').replace("Object class = ", "")
    assert parse_textgrid(old) == parse_textgrid(SHORT)
    loose = SHORT.replace("<exists>", "! a comment, 3 of them\ntiers? <exists>")
    loose = loose.replace("0\n1.5", "0.0 1.5e0")
    assert parse_textgrid(loose) == parse_textgrid(SHORT)
    assert parse_textgrid(SHORT.split("<")[0] + "<absent>").tiers == []


def test_intervals_of_a_tier_bound_segments():
    tier = parse_textgrid(PRAATS).interval_tier('said "aloud"')
    assert [(i.start, i.end) for i in tier.labelled()] == [(0.5, 1.25)]
    with pytest.raises(
        ValueError, match=r'`name` must be that of a tier of intervals \(said "aloud"\), but is \'clicks\''
    ):
        GRID.interval_tier("clicks")


def test_intervals_that_touch_but_for_rounding_are_read():
    assert parse_textgrid(SHORT.replace("\n1.5\n2.3", "\n1.4999999999\n2.3")).tiers


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n1.5\n2.3", "\n1.4\n2.3", r"a:16: interval 2 of tier 'words' must start where interval 1 ends "
         r"\(1.5\) or later, but starts at 1.4"),
        ("\n1.5\n2.3", "\n1.5\n1.5", r"a:16: interval 2 of tier 'words' must end behind its start \(1.5\), "
         r"but ends at 1.5"),
        ('\n1.5\n2.3\n""\n', "", "a:15: must go on with xmin of an interval, but the file ends"),
        ('"words"', "7", "a:9: must have the name of a tier here, but has the number 7.0"),
        ("\n1.5\n2.3", "\n1.5\nx", "a:18: must have xmax of an interval here, but has the text ''"),
        ("<exists>", '"yes"', "a:6: must have <exists> or <absent> here, but has the text 'yes'"),
        ("IntervalTier", "PitchTier", "a:8: must be an IntervalTier or a TextTier, but is 'PitchTier'"),
        ("2.3\n2\n", "2.3\n-2\n", "a:12: the number of intervals must be a count, but is -2.0"),
        ("2.3\n2\n", "2.3\n1e999\n", "a:12: the number of intervals must be a count, but is inf"),
        ("\n1.5\n2.3", "\n1.5\n1e400", "a:17: xmax of an interval must be finite, but is inf"),
        ("2.3\n2\n", "2.3\n1.5\n", "a:12: the number of intervals must be a count, but is 1.5"),
        ('"a"', '"a', "a:18: must close the text that begins here, but the file ends before its quote"),
        ("TextGrid", "Sound", "a: must be a TextGrid of Praat's, but does not begin like one; save it"),
        (SHORT, "", "a: must be a TextGrid of Praat's"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(old, new, message):
    assert old in SHORT
    with pytest.raises(ManifestError, match=message):
        parse_textgrid(SHORT.replace(old, new), name="a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ooBinaryFile\x08TextGrid", "a: must be a text file, but is a binary one; save it in Praat"),
        (SHORT.replace('"a"', '"\xe4"').encode("latin-1"), "a:15: must be UTF-8 or UTF-16, but is not; save"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        read_textgrid("a")


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_textgrid(tmp_path / "nothing.TextGrid")
