"""Shards: lhotse reads what `prepare` writes, and training reads from them what it reads from files."""

import io
import itertools
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut
from lhotse.shar import SharWriter

from unispeech.audio import load_audio
from unispeech.data import collation
from unispeech.data.batches import make_loader
from unispeech.data.collation import load_cut
from unispeech.data.corpora import Preparation, prepare_corpus
from unispeech.data.cuts import CutFiles
from unispeech.data.shards import check_name, pack, read_index, read_sharded
from unispeech.errors import ManifestError
from unispeech.text import Vocabulary

RATES = (16_000, 8_000, 44_100)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A manifest of ten recordings of several rates, the first of two channels, and a segment of the last."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for index in range(10):
        rate = RATES[index % 3] if index < 6 else 16_000
        shape = (rate // 2 + 500 * index, 2 if index == 0 else 1)
        noise = np.random.default_rng(index).uniform(-0.9, 0.9, shape)
        soundfile.write(folder / f"{index}.wav", noise, rate, subtype="FLOAT")
        lines.append({
            "id": f"speaker{index % 2}/{index}", "audio": f"{index}.wav", "text": "ja so", "phones": "a b",
            "language": "de", "speaker": f"s{index % 2}",
        })  # fmt: skip
    lines.append({**lines[-1], "id": "ré.gion", "offset": 0.1, "duration": 0.25})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    prepare_corpus(corpus, folder, Preparation())
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory) -> Path:
    """The corpus in shards of four utterances."""
    folder = tmp_path_factory.mktemp("sharded%20")
    assert prepare_corpus(corpus, folder, Preparation(shard_utterances=4)).num_kept == 11
    return folder


@pytest.fixture
def sharded(prepared, tmp_path) -> Path:
    """A copy of the shards that may be spoilt."""
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWhatIsWritten:
    def test_lhotse_reads_it(self, corpus, plain, prepared):
        assert files(prepared / "shar") == [
            f"{name}.{number:06d}.{suffix}"
            for name, suffix in (("cuts", "jsonl.gz"), ("recording", "tar"))
            for number in range(3)
        ]
        theirs, ours = list(CutSet.from_shar(in_dir=prepared / "shar")), list(CutFiles(plain))
        assert [cut.id for cut in theirs] == [cut.id for cut in ours] and len(ours) == 11
        for mine, cut in zip(ours, theirs, strict=True):
            supervision = cut.supervisions[0]
            assert supervision.custom == {"phones": "a b"} and supervision.text == "ja so"
            assert (supervision.language, supervision.speaker) == ("de", mine.supervisions[0].speaker)
            assert cut.duration == mine.duration
            samples, rate = soundfile.read(
                corpus / Path(mine.recording.sources[0].source).name, always_2d=True, dtype="float32"
            )
            assert cut.sampling_rate == rate
            first = round(mine.start * rate)
            wanted = samples.mean(axis=1)[first : first + round(mine.duration * rate)]
            # Flac of 16 bits: the nearest of 2 ** 16 values.
            np.testing.assert_array_equal(cut.load_audio()[0], np.rint(wanted * 32768) / 32768)

    def test_recordings_of_16_bits_are_kept_to_the_bit(self, tmp_path):
        samples = np.random.default_rng(0).integers(-32768, 32768, 5_000).astype(np.int16)
        soundfile.write(tmp_path / "a.wav", samples, 16_000)
        flac = io.BytesIO(pack(tmp_path / "a.wav", 16_000).flac)
        np.testing.assert_array_equal(soundfile.read(flac, dtype="int16")[0], samples)

    def test_shards_by_hours(self, corpus, tmp_path):
        prepare_corpus(corpus, tmp_path, Preparation(shard_hours=1.5 / 3600))
        sizes = [len(read_index(path)) for path in sorted((tmp_path / "shar").glob("*.tar"))]
        assert sum(sizes) == 11 and max(sizes) <= 3 and len(sizes) > 3
        cuts = iter(CutFiles(tmp_path))
        lengths = [[next(cuts).duration for _ in range(size)] for size in sizes]
        for shard, following in itertools.pairwise(lengths):
            assert sum(shard) <= 1.5 < sum(shard) + following[0]

    def test_equal_corpora_give_equal_bytes_and_replace_the_old(self, corpus, prepared, tmp_path):
        for _ in range(2):
            prepare_corpus(corpus, tmp_path, Preparation(shard_utterances=4))
        assert files(tmp_path) == files(prepared)
        for path in (prepared / "shar").iterdir():
            assert path.read_bytes() == (tmp_path / "shar" / path.name).read_bytes()

    def test_a_failure_leaves_the_old_and_nothing_else(self, sharded, tmp_path):
        before = files(sharded), files(sharded / "shar")
        (tmp_path / "bad.jsonl").write_text('{"audio": "none.wav", "phones": "a"}\n')
        with pytest.raises(ManifestError, match="something must be left to train on"):
            prepare_corpus(tmp_path / "bad.jsonl", sharded, Preparation(shard_utterances=4))
        assert (files(sharded), files(sharded / "shar")) == before
        assert len(list(CutFiles(sharded))) == 11

    def test_what_cannot_be_packed_is_rejected(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.full(8_000, 0.1), 16_000)
        soundfile.write(tmp_path / "loud.wav", np.full(8_000, 700.0), 16_000, subtype="FLOAT")
        soundfile.write(tmp_path / "torn.flac", np.random.default_rng(0).uniform(-1, 1, 8_000), 16_000)
        whole = (tmp_path / "torn.flac").read_bytes()
        (tmp_path / "torn.flac").write_bytes(whole[: len(whole) // 2])
        soundfile.write(tmp_path / "long.wav", np.zeros(16_000), 16_000)
        names = {"a": "a.wav", "b//c": "a.wav", "loud": "loud.wav", "torn": "torn.flac"}
        lines = [{"id": name, "audio": audio, "phones": "a"} for name, audio in names.items()]
        lines += [
            {"id": "long", "audio": "long.wav", "phones": "a", "offset": 0, "duration": 0.6},
            {"id": "late", "audio": "a.wav", "phones": "a", "offset": 0.4, "duration": 9},
        ]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        report = prepare_corpus(
            tmp_path / "m.jsonl", tmp_path / "out", Preparation(shard_utterances=9, max_seconds=0.5)
        )
        assert report.num_kept == 1
        rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
        assert {line["id"]: line["reason"] for line in rejected} == {
            "long": "too-long", "b//c": "bad-line", "loud": "unreadable-audio", "torn": "unreadable-audio",
            "late": "past-end",
        }  # fmt: skip
        assert "to be stored with 16 bits, but reach 700" in rejected[1]["detail"]

    def test_settings_that_make_no_sense(self, corpus, plain, sharded, tmp_path):
        for settings in (
            {"shard_utterances": 0}, {"shard_hours": -1.0}, {"shard_hours": float("nan")},
            {"shard_utterances": 1, "shard_hours": 1.0},
        ):  # fmt: skip
            with pytest.raises(ValueError, match="a shard must have one limit, a positive number"):
                prepare_corpus(corpus, tmp_path / "out", Preparation(**settings))
        with pytest.raises(ValueError, match="`relative_paths` must not be given with shards"):
            prepare_corpus(corpus, tmp_path / "out", Preparation(shard_utterances=1, relative_paths=True))
        with pytest.raises(ManifestError, match=r"must not hold cuts\.jsonl\.gz beside shar"):
            prepare_corpus(corpus, plain, Preparation(shard_utterances=1))
        with pytest.raises(ManifestError, match=r"must not hold shar beside cuts\.jsonl\.gz"):
            prepare_corpus(corpus, sharded, Preparation())
        assert len(list(CutFiles([plain, sharded]))) == 22

    def test_known_times_go_along(self, plain, tmp_path):
        (tmp_path / "cuts.jsonl").write_text("".join(_with_times(cut) for cut in CutFiles(plain)))
        source, out = tmp_path / "cuts.jsonl", tmp_path / "out"
        prepare_corpus(source, out, Preparation(shard_utterances=5, format="cuts"))
        with pytest.raises(ManifestError, match="recordings must be files, but lie in shards"):
            prepare_corpus(out, tmp_path / "again", Preparation())
        cuts = {cut.id: cut for cut in CutFiles(source)}
        for cut in CutSet.from_shar(in_dir=out / "shar"):
            assert cut.supervisions[0].alignment == cuts[cut.id].supervisions[0].alignment
            assert cut.supervisions[0].custom == cuts[cut.id].supervisions[0].custom
        mine, theirs = (
            list(make_loader(data, vocabulary=VOCABULARY, shuffle=False)) for data in (source, out)
        )
        for one, other in zip(mine, theirs, strict=True):
            assert one["frame_labels"].tolist() == other["frame_labels"].tolist()
            assert (one["frame_labels"] > 0).any()


VOCABULARY = Vocabulary.build(["a b"], kind="phones")


def _with_times(cut: MonoCut) -> str:
    fields = cut.to_dict()
    fields["supervisions"][0]["alignment"] = {"phone": [["a", 0.05, 0.1, None], ["b", 0.15, 0.05, None]]}
    return json.dumps(fields) + "\n"


class TestTraining:
    def test_batches_are_those_of_plain_files(self, plain, prepared):
        settings = {"vocabulary": VOCABULARY, "batch_seconds": 1.5, "do_normalize": False, "seed": 3}
        loaders = [make_loader(data, **settings) for data in (plain, prepared)]
        assert loaders[0].plan.fingerprint == loaders[1].plan.fingerprint
        sources = {cut.id: cut for cut in CutFiles(plain)}
        for _ in range(2):
            for mine, theirs in zip(*loaders, strict=True):
                assert mine["ids"] == theirs["ids"]
                assert mine["labels"].tolist() == theirs["labels"].tolist()
                assert mine["num_samples"].tolist() == theirs["num_samples"].tolist()
                for name, one, other in zip(
                    mine["ids"], mine["input_values"], theirs["input_values"], strict=True
                ):
                    if sources[name].sampling_rate == 16_000:
                        np.testing.assert_array_equal((one * 32768).round() / 32768, other)
                    np.testing.assert_allclose(one, other, atol=2**-14)

    def test_several_folders_at_once_and_the_shards_themselves(self, plain, sharded, tmp_path):
        other = tmp_path / "disk2"
        other.mkdir()
        for name in ("cuts.000001.jsonl.gz", "recording.000001.tar"):
            shutil.move(sharded / "shar" / name, other / name)
        names = [cut.id for cut in CutFiles([sharded, other])]
        wanted = [cut.id for cut in CutFiles(plain)]
        assert names == wanted[:4] + wanted[8:] + wanted[4:8]
        assert CutFiles([sharded, other, plain]).paths == [
            sharded / "shar", other, plain / "cuts.jsonl.gz",
        ]  # fmt: skip

    def test_no_audio_is_read_but_what_a_process_uses(self, prepared, monkeypatch):
        read: list[str] = []

        def note(place):
            read.append(place)
            return read_sharded(place)

        monkeypatch.setattr(collation, "read_sharded", note)
        places = []
        for rank in range(2):
            loader = make_loader(prepared, batch_seconds=1.5, rank=rank, world_size=2, num_workers=0)
            assert read == []
            ids = [name for batch in loader for name in batch["ids"]]
            assert len(read) == len(ids) > 0
            places.append(set(read))
            read.clear()
        assert not places[0] & places[1] and len(places[0] | places[1]) == 11

    def test_headers_are_read_once(self, prepared, monkeypatch):
        cuts = CutFiles(prepared)
        first = [cut.recording.sources[0].source for cut in cuts]
        monkeypatch.setattr(tarfile, "open", None)
        assert [cut.recording.sources[0].source for cut in cuts] == first

    def test_a_part_of_a_recording_in_a_shard(self, prepared):
        whole = next(cut for cut in CutFiles(prepared) if cut.id == "speaker0/6")
        part = whole.truncate(offset=0.125, duration=0.25)
        np.testing.assert_array_equal(load_cut(part), load_cut(whole)[2_000:6_000])

    def test_shards_that_lhotse_wrote(self, plain, tmp_path):
        with SharWriter(tmp_path, fields={"recording": "wav"}, shard_size=4) as writer:
            for cut in CutFiles(plain):
                writer.write(cut)
        for cut, mine in zip(CutFiles(plain), CutFiles(tmp_path), strict=True):
            assert mine.id == cut.id
            if cut.id != "speaker0/0":  # lhotse keeps the first channel
                np.testing.assert_allclose(load_cut(mine), load_cut(cut), atol=2**-14)


class TestDamage:
    @pytest.mark.parametrize("keep", [0, 100, 512, 20_000, -1024 * 8])
    def test_a_torn_tar(self, sharded, keep):
        tar = sharded / "shar" / "recording.000001.tar"
        content = tar.read_bytes()
        content = content.rstrip(b"\0") if keep < 0 else content[:keep]
        tar.write_bytes(content + bytes(-len(content) % 512) if keep < 0 else content)
        with pytest.raises(
            ManifestError, match=r"recording\.000001\.tar: must be a whole tar, but is not \(.*copy it again"
        ):
            make_loader(sharded)

    def test_a_tar_torn_after_it_was_looked_at(self, sharded):
        loader = make_loader(sharded, shuffle=False, batch_seconds=60)
        tar = sharded / "shar" / "recording.000002.tar"
        tar.write_bytes(tar.read_bytes()[:10_000])
        batch = next(iter(loader))
        assert len(batch["ids"]) == 8 and len(loader.unreadable) == 3
        assert "must be a whole tar, but is not" in loader.unreadable["speaker0/8"]

    @pytest.mark.parametrize(
        ("gone", "message"),
        [
            ("recording.000001.tar", r"recording\.000001\.tar: must lie beside cuts\.000001\.jsonl\.gz, but"),
            ("cuts.000002.jsonl.gz", r"cuts\.000002\.jsonl\.gz: must lie beside recording\.000002\.tar, but"),
        ],
    )
    def test_half_a_shard(self, sharded, gone, message):
        (sharded / "shar" / gone).unlink()
        with pytest.raises(ManifestError, match=message + ".*copy it there, or remove"):
            CutFiles(sharded)

    def test_other_numbers_of_cuts_and_recordings(self, sharded):
        shutil.copy(sharded / "shar/recording.000002.tar", sharded / "shar/recording.000001.tar")
        with pytest.raises(
            ManifestError,
            match=r"recording\.000001\.tar: must hold a recording for each of the 4 cuts in "
            r"cuts\.000001\.jsonl\.gz, but holds 3; copy both files again",
        ):
            list(CutFiles(sharded))

    def test_another_order(self, sharded):
        shutil.copy(sharded / "shar/recording.000000.tar", sharded / "shar/recording.000001.tar")
        with pytest.raises(
            ManifestError,
            match=r"cuts\.000001\.jsonl\.gz:1: cuts must stand in the order of recording.*speaker0/4",
        ):
            list(CutFiles(sharded))

    def test_a_file_of_cuts_that_is_cut_off(self, sharded):
        cuts = sharded / "shar/cuts.000001.jsonl.gz"
        cuts.write_bytes(cuts.read_bytes()[:-50])
        with pytest.raises(ManifestError, match=r"cuts\.000001\.jsonl\.gz:\d+: must be readable, but is not"):
            list(CutFiles(sharded))
        cuts.write_bytes(cuts.read_bytes()[:40] + bytes(60))
        with pytest.raises(ManifestError, match=r"cuts\.000001\.jsonl\.gz:\d+: must be readable, but is not"):
            list(CutFiles(sharded))

    def test_compressed_recordings(self, sharded):
        tar = sharded / "shar/recording.000001.tar"
        tar.rename(tar.with_suffix(".tar.gz"))
        with pytest.raises(ManifestError, match=r"recording\.000001\.tar\.gz: recordings must lie in a tar"):
            CutFiles(sharded)

    def test_cuts_without_recordings(self, plain, tmp_path):
        with SharWriter(tmp_path, fields={"recording": "flac"}, shard_size=4) as writer:
            cut = next(iter(CutFiles(plain)))
            writer.write(cut)
            writer.writers["recording"].write_placeholder("b")
            writer.writers["cuts"].write(MonoCut.from_dict({**cut.to_dict(), "id": "b"}))
        with pytest.raises(ManifestError, match=r"jsonl\.gz:2: recording must lie in a shard, but is 'file'"):
            list(CutFiles(tmp_path))

    def test_a_recording_of_no_bytes(self, sharded):
        _rewrite(sharded / "shar/recording.000001.tar", b"")
        with pytest.raises(ManifestError, match=r"cuts\.000001\.jsonl\.gz:1: cut must have a recording, but"):
            list(CutFiles(sharded))

    def test_a_recording_that_is_no_audio(self, sharded):
        _rewrite(sharded / "shar/recording.000001.tar", b"no audio")
        bad = list(CutFiles(sharded))[4]
        with pytest.raises(ManifestError, match=r"000001\.tar:512:8: audio of speaker0/4 cannot be read"):
            load_cut(bad)

    def test_samples_that_are_not_finite(self, sharded):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full(8_000, np.nan), 16_000, format="WAV", subtype="FLOAT")
        _rewrite(sharded / "shar/recording.000001.tar", buffer.getvalue())
        with pytest.raises(ManifestError, match="recording: samples must be finite, but are not"):
            load_cut(list(CutFiles(sharded))[4])

    def test_cuts_and_shards_in_one_folder(self, plain, sharded):
        shutil.copy(plain / "cuts.jsonl.gz", sharded)
        with pytest.raises(ManifestError, match=r"must hold cuts\.jsonl\.gz or shards, but holds both"):
            CutFiles(sharded)

    def test_one_file_of_a_shard(self, sharded):
        with pytest.raises(
            ManifestError, match="recording must be a file, but is 'shar'; name the folder of"
        ):
            list(CutFiles(sharded / "shar/cuts.000000.jsonl.gz"))


def _rewrite(path: Path, content: bytes) -> None:
    """Put other bytes into the place of the first recording of a shard."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    members[0] = (members[0][0], content)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


class TestPacking:
    def test_peaks_of_lossy_formats_are_cut(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.2, -1.2] * 1000), 16_000, subtype="FLOAT")
        packed = pack(tmp_path / "a.wav", 16_000)
        samples, _ = soundfile.read(io.BytesIO(packed.flac), dtype="int16")
        assert samples[:3].tolist() == [16384, 32767, -32768] and packed.num_samples == 3000

    def test_a_rate_that_flac_lacks(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.zeros(3_000_000), 1_500_000)
        with pytest.raises(ManifestError, match="sample rate must be one that flac has, but is 1500000 Hz"):
            pack(tmp_path / "a.wav", 1_500_000)

    def test_a_stretch_of_what_only_load_audio_reads(self, tmp_path, monkeypatch):
        soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 16_000), 16_000)
        straight = pack(tmp_path / "a.wav", 16_000, 0.25, 0.5)

        def refuse(*_):
            raise soundfile.LibsndfileError(1)

        monkeypatch.setattr("unispeech.data.shards.read_samples", refuse)
        assert pack(tmp_path / "a.wav", 16_000, 0.25, 0.5) == straight
        assert straight.num_samples == 8_000

    @pytest.mark.parametrize("name", ["a/b", "/a/b.1", "ö", "a b", "x" * 300])
    def test_names_that_can_be_files(self, name):
        check_name(name)

    @pytest.mark.parametrize("name", ["a//b", "./a", "a/", "a/./b", "a\0b"])
    def test_names_that_cannot(self, name):
        with pytest.raises(ManifestError, match="id must be usable as the name of a file in a shard, but is"):
            check_name(name)

    def test_long_and_foreign_names(self, tmp_path):
        soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 16_000)
        names = ["x" * 300, "/abs/ö", "deep/" * 60 + "x", "half\udc80"]
        lines = [{"id": name, "audio": "a.wav", "phones": "a"} for name in names[:3]]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        prepare_corpus(tmp_path / "m.jsonl", tmp_path / "out", Preparation(shard_utterances=9))
        assert [cut.id for cut in CutFiles(tmp_path / "out")] == names[:3]
        assert [cut.id for cut in CutSet.from_shar(in_dir=tmp_path / "out/shar")] == names[:3]


def test_a_name_that_is_no_utf8(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.zeros(8_000), 16_000)
    (folder / "a.wav").rename(folder / "half\udc80.wav")
    (folder / "half\udc80.txt").write_text("ja")
    prepare_corpus(folder, tmp_path / "out", Preparation(units="characters", shard_utterances=9))
    [cut] = CutFiles(tmp_path / "out")
    assert cut.id == "half\udc80" and len(load_cut(cut)) == 8_000
    assert len(load_audio(folder / "half\udc80.wav")) == 8_000
