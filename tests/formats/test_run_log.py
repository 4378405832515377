import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispeech.errors import ManifestError
from unispeech.formats.run_log import LOG_FILE, read_log, short_names
from unispeech.training.monitor import LOG_FILE as WRITTEN_FILE
from unispeech.training.monitor import Monitor

LINES = [
    '{"update": 20, "audio_seconds": 1800.0, "eta_seconds": 60.0, "loss": 4.5, "lr": 1}',
    '{"update": 40, "audio_seconds": 3600.0, "loss": NaN, "lr": 2, "note": "x", "is_odd": true}',
    '{"update": 40, "audio_seconds": 3600.0, "dev/per": 0.25}',
]


def write_log(run: Path, *lines: str | bytes, end: str = "\n") -> Path:
    run.mkdir(parents=True, exist_ok=True)
    whole = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    (run / LOG_FILE).write_bytes(whole + (end.encode() if lines else b""))
    return run


def test_values_stand_with_their_updates_and_hours(tmp_path):
    log = read_log(write_log(tmp_path, *LINES))
    assert list(log.curves) == ["loss", "lr", "dev/per"]
    np.testing.assert_array_equal(log.curves["loss"].values, [4.5, np.nan])
    np.testing.assert_array_equal(log.curves["lr"].updates, [20, 40])
    np.testing.assert_array_equal(log.curves["lr"].hours, [0.5, 1.0])
    np.testing.assert_array_equal(log.curves["dev/per"].hours, [1.0])
    assert log.directory == tmp_path


def test_what_the_monitor_writes_is_read(tmp_path):
    assert LOG_FILE == WRITTEN_FILE
    with Monitor(tmp_path, update=0, num_updates=2, audio_seconds=0.0) as monitor:
        monitor.advance(1, 36.0)
        monitor.log(1, {"loss": 2.0, "dead_codes/0": 3.0})
    log = read_log(tmp_path / LOG_FILE)
    assert log.directory == tmp_path
    assert {name: curve.values.tolist() for name, curve in log.curves.items()} == {
        "loss": [2.0],
        "dead_codes/0": [3.0],
    }
    assert log.curves["loss"].hours == pytest.approx([0.01])


@pytest.mark.parametrize("torn", ["{", '{"update": 60, "lo', '{"update"', b'{"\xc3', b"\0\0\0"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_torn_last_line_is_left_out(tmp_path, torn, end):
    log = read_log(write_log(tmp_path, *LINES, torn, end=end))
    assert {name: len(curve.values) for name, curve in log.curves.items()} == {
        "loss": 2,
        "lr": 2,
        "dev/per": 1,
    }


@given(st.integers(1, sum(map(len, LINES)) + 2))
def test_a_log_may_end_anywhere(tmp_path_factory, num_bytes):
    whole = "\n".join(LINES).encode()[:num_bytes]
    run = tmp_path_factory.mktemp("run")
    (run / LOG_FILE).write_bytes(whole)
    if num_bytes < len(LINES[0]):
        with pytest.raises(ManifestError, match="must hold a line with values"):
            read_log(run)
    else:
        assert read_log(run).curves["loss"].values[0] == 4.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", r"log\.jsonl:2: line must be JSON, but is not\."),
        ("[1]", r"log\.jsonl:2: line must be a JSON object, but is of type list\."),
        ('{"audio_seconds": 1}', r"log\.jsonl:2: `update` must be a number, but is missing\."),
        ('{"update": 1, "audio_seconds": "x"}', r"log\.jsonl:2: `audio_seconds` must be a number, but is x"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    with pytest.raises(ManifestError, match=message):
        read_log(write_log(tmp_path, LINES[0], line, LINES[1]))


def test_a_run_without_a_log_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none: must be a run directory, but does not exist; check"):
        read_log(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"must hold a run, but has no log\.jsonl\."):
        read_log(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file: must be a run directory, but is a file"):
        read_log(tmp_path / "file")


@pytest.mark.parametrize("lines", [(), ('{"upd',), ('{"update": 1, "audio_seconds": 2}',)])
def test_an_empty_log_is_named(tmp_path, lines):
    with pytest.raises(ManifestError, match=r"log\.jsonl: must hold a line with values, but has none; wait"):
        read_log(write_log(tmp_path, *lines))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["a"]),
        (["."], [Path.cwd().name]),
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["x/p/a", "y/q/b"], ["a", "b"]),
        (["a/fold-1", "b/fold-1"], ["a", "b"]),
        (["a/s1/run", "a/s2/run", "b/s1/run"], ["a/s1", "a/s2", "b/s1"]),
        (["a/s1", "a/s2", "b/s1"], ["a/s1", "a/s2", "b/s1"]),
        (["runs", "runs/a"], ["runs", "a"]),
        (["/", "/a"], ["/", "a"]),
        (["b\udce9", "c"], ["b\ufffd", "c"]),
    ],
)
def test_names_are_as_short_as_can_be(paths, names):
    assert short_names([Path(path) for path in paths]) == names


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4).map(tuple), min_size=1, max_size=9, unique=True))
def test_names_tell_runs_apart(parts):
    names = short_names([Path("/", *path) for path in parts])
    assert len(set(names)) == len(parts)


def test_numbers_of_json_are_enough(tmp_path):
    line = json.dumps({"update": 1, "audio_seconds": 0, "temperature": float("inf"), "loss": 10**30})
    curves = read_log(write_log(tmp_path, line)).curves
    assert np.isnan(curves["temperature"].values).all()
    assert curves["loss"].values == [1e30]
