"""Phrases, parts and manifests of the comparison's corpora."""

import json
from pathlib import Path

import pytest

from experiments.corpora import REAL, Sources, _manifest, make_corpus, phrases, split_minutes


def cut(name: str, seconds: float) -> dict[str, object]:
    return {"id": name, "duration": seconds}


def test_phrases_are_short_and_held_out_ones_are_heard_nowhere_else() -> None:
    lines = [" ".join(f"w{i}.{j}" for j in range(i % 17)) for i in range(100)] + ["same words here"] * 20
    train, held_out = phrases(lines, (2, 5), 0)
    assert all(2 <= len(phrase.split()) <= 5 for phrase in train + held_out)
    assert not set(train) & set(held_out)
    assert len(set(train)) == len(train)
    assert {int(phrase[1:].split(".")[0]) % 10 for phrase in held_out} == {9}
    assert phrases(lines, (2, 5), 0) == (train, held_out)


def test_words_are_lost_only_where_too_few_are_left() -> None:
    [*train], _ = phrases(["a b c d e f g"], (2, 3), 0)
    assert " ".join(train) in {"a b c d e f g", "a b c d e f"}


def test_minutes_are_taken_from_the_front() -> None:
    cuts = [cut(str(i), 30.0) for i in range(6)]
    front, rest = split_minutes(cuts, 1.0)
    assert [one["id"] for one in front] == ["0", "1"]
    assert [one["id"] for one in rest] == ["2", "3", "4", "5"]
    assert split_minutes(cuts, 99.0) == (cuts, [])
    assert split_minutes([], 1.0) == ([], [])


def test_a_manifest_of_human_speech(tmp_path: Path) -> None:
    common = {"duration": 1.0, "speaker": "s"}
    lines = [
        {"dataset": "audio-cmn", "language": "zh-CN", "audio": "a.mp3", "phones": "zuo4", **common},
        {"dataset": "audio-cmn", "language": "zh-CN", "audio": "b.mp3", "text": "hanzi", **common},
        {"dataset": "kerstin-de", "language": "de", "audio": "c.mp3", "text": "ja", **common},
    ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    made = _manifest(REAL["zh"], path)
    assert [line["text"] for line in made] == ["zuo4", "hanzi"]
    assert {line["language"] for line in made} == {"cmn"}
    assert made[0]["audio"] == str(tmp_path / "a.mp3")


def test_an_unknown_language_is_told(tmp_path: Path) -> None:
    spec = {"origin": "real", "language": "xx", "valid_minutes": 1, "test_minutes": 1, "labelled_minutes": 1}
    sources = Sources(texts=tmp_path, manifest=tmp_path / "manifest.jsonl")
    with pytest.raises(ValueError, match="`language` must be one of de, zh, es, fr, ru, but is 'xx'"):
        make_corpus(spec, tmp_path / "out", sources)
