"""Model directories: both ways with transformers, every layout of weights, nothing lost on a full disk."""

import errno
import json
import logging
import os
import shutil

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import unispeech.models
from unispeech.checkpoints import huggingface
from unispeech.checkpoints.huggingface import describe_mismatch, load_model, save_model
from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError
from unispeech.models import UniSpeechForCTC, UniSpeechForPreTraining, UniSpeechModel
from unispeech.text import Vocabulary
from unispeech.tokenizer_files import read_do_normalize

CLASSES = (
    "UniSpeechModel",
    "UniSpeechForCTC",
    "UniSpeechForSequenceClassification",
    "UniSpeechForPreTraining",
)
VOCABULARY = Vocabulary.build(["a b c"], kind="phones")


def tiny(norm: str = "layer", **overrides) -> dict:
    """Fields of a network of two layers of 16."""
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_dim": (8, 8),
        "conv_kernel": (10, 3),
        "conv_stride": (5, 2),
        "num_conv_pos_embeddings": 6,
        "num_conv_pos_embedding_groups": 2,
        "num_codevectors_per_group": 3,
        "codevector_dim": 8,
        "proj_codevector_dim": 8,
        "num_ctc_classes": 5,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer",
        "conv_bias": norm == "layer",
    }
    return sizes | overrides


def make(name: str = "UniSpeechForCTC", norm: str = "layer", **overrides):
    """One of our models, with weights in which biases and norms matter."""
    torch.manual_seed(0)
    model = getattr(unispeech.models, name)(UniSpeechConfig(**tiny(norm, **overrides))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def answer(model) -> torch.Tensor:
    """What a model says of a fixed waveform; quantized latents of the pre-training class."""
    waveforms = torch.randn(2, 400, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model(waveforms)
    for name in ("logits", "projected_quantized_states"):
        if name in output:
            return output[name]
    return output.last_hidden_state


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("name", CLASSES)
class TestBothWays:
    """The same numbers out of transformers' class and out of ours, whoever wrote the directory."""

    def test_ours_in_theirs(self, tmp_path, name, norm):
        model = make(name, norm)
        save_model(model, tmp_path / "m")
        stock = getattr(transformers, name).from_pretrained(tmp_path / "m")
        torch.testing.assert_close(answer(stock), answer(model), atol=1e-5, rtol=0)

    def test_theirs_in_ours(self, tmp_path, name, norm):
        torch.manual_seed(0)
        stock = getattr(transformers, name)(transformers.UniSpeechConfig(**tiny(norm))).eval()
        stock.save_pretrained(tmp_path / "m")
        model = load_model(tmp_path / "m")
        assert type(model) is getattr(unispeech.models, name)
        assert not model.training
        torch.testing.assert_close(answer(model), answer(stock), atol=1e-5, rtol=0)


class TestLayouts:
    """Weights as they are met on disk."""

    @pytest.fixture
    def model(self):
        return make()

    def check(self, model, folder):
        assert torch.equal(answer(load_model(folder)), answer(model))

    def test_shards(self, tmp_path, model):
        model.save_pretrained(tmp_path / "m", max_shard_size="4KB")
        assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
        self.check(model, tmp_path / "m")

    def test_bin(self, tmp_path, model):
        model.config.save_pretrained(tmp_path / "m")
        self.name_architecture(tmp_path / "m")
        torch.save(model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
        self.check(model, tmp_path / "m")

    def test_sharded_bin(self, tmp_path, model):
        model.config.save_pretrained(tmp_path / "m")
        self.name_architecture(tmp_path / "m")
        state = list(model.state_dict().items())
        halves = {
            "pytorch_model-00001-of-00002.bin": state[:9],
            "pytorch_model-00002-of-00002.bin": state[9:],
        }
        for file, items in halves.items():
            torch.save(dict(items), tmp_path / "m" / file)
        index = {
            "metadata": {},
            "weight_map": {key: file for file, items in halves.items() for key, _ in items},
        }
        (tmp_path / "m" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        self.check(model, tmp_path / "m")

    @pytest.mark.parametrize("suffix", ["safetensors", "bin"])
    def test_old_weight_norm_keys(self, tmp_path, model, suffix):
        model.config.save_pretrained(tmp_path / "m")
        self.name_architecture(tmp_path / "m")
        state = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): tensor
            for key, tensor in model.state_dict().items()
        }
        assert sum(key.endswith(("weight_g", "weight_v")) for key in state) == 2
        if suffix == "bin":
            torch.save(state, tmp_path / "m" / "pytorch_model.bin")
        else:
            save_file(state, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
        self.check(model, tmp_path / "m")

    def test_a_hub_id_in_the_cache(self, tmp_path, model, monkeypatch):
        commit = "0" * 40
        repository = tmp_path / "models--someone--tiny"
        save_model(model, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        loaded = load_model("someone/tiny", cache_dir=tmp_path, local_files_only=True)
        assert torch.equal(answer(loaded), answer(model))

    def name_architecture(self, folder):
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | {"architectures": ["UniSpeechForCTC"]}))


class TestHead:
    """Which class a directory is loaded as."""

    def test_base_of_any(self, tmp_path):
        save_model(make(), tmp_path / "m")
        model = load_model(tmp_path / "m", head="base")
        assert type(model) is UniSpeechModel

    def test_unknown(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"`head` must be one of auto, ctc, .*but is 'ctx'; did you mean 'ctc'"
        ):
            load_model(tmp_path, head="ctx")

    def test_not_named(self, tmp_path):
        save_model(make(), tmp_path / "m")
        content = json.loads((tmp_path / "m" / "config.json").read_text())
        (tmp_path / "m" / "config.json").write_text(json.dumps(content | {"architectures": None}))
        with pytest.raises(
            CheckpointError, match=r"config.json must name one of .* in `architectures`, but names None"
        ):
            load_model(tmp_path / "m")
        assert type(load_model(tmp_path / "m", head="ctc")) is UniSpeechForCTC

    def test_arguments_reach_the_class(self, tmp_path):
        save_model(make(), tmp_path / "m")
        model = load_model(tmp_path / "m", layerdrop=0.3, dtype=torch.bfloat16, attn_implementation="eager")
        assert (model.config.layerdrop, model.dtype, model.config._attn_implementation) == (
            0.3,
            torch.bfloat16,
            "eager",
        )


class TestReport:
    """What does not fit is said in one line."""

    def test_a_fine_tuned_file_as_pre_trained(self, tmp_path):
        save_model(make(), tmp_path / "m")
        with pytest.raises(CheckpointError) as caught:
            load_model(tmp_path / "m", head="pretraining")
        assert str(caught.value).startswith(
            f"{tmp_path / 'm'}: missing 9 weights (ctc_proj.bias, ctc_proj.weight, "
        )
        assert "and 1 more), unexpected 2 weights (lm_head.bias, lm_head.weight)" in str(caught.value)
        assert (
            "this looks like a fine-tuned checkpoint, load it as UniSpeechForCTC or run it with "
            "`unispeech transcribe`." in str(caught.value)
        )
        assert "\n" not in str(caught.value)

    def test_a_pre_trained_file_for_recognition(self, tmp_path, caplog):
        save_model(make("UniSpeechForPreTraining"), tmp_path / "m")
        with pytest.raises(
            CheckpointError, match="this looks like a pre-trained checkpoint, load it as UniSpeechForPreT"
        ):
            load_model(tmp_path / "m", head="ctc")
        with caplog.at_level(logging.WARNING):
            model = load_model(tmp_path / "m", head="ctc", allow_missing=True)
        assert type(model) is UniSpeechForCTC
        assert "missing 2 weights (lm_head.bias, lm_head.weight)" in caplog.text
        assert "LOAD REPORT" not in caplog.text

    def test_another_shape(self, tmp_path):
        save_model(make(), tmp_path / "m")
        with pytest.raises(
            CheckpointError, match=r"mismatched 2 weights \(lm_head.bias \(4,\) instead of \(7,\), .*allow_mi"
        ):
            load_model(tmp_path / "m", vocab_size=7)
        assert load_model(tmp_path / "m", vocab_size=7, allow_missing=True).lm_head.out_features == 7

    def test_a_weight_too_many(self, tmp_path, caplog):
        save_model(make(), tmp_path / "m")
        state = load_file(tmp_path / "m" / "model.safetensors")
        save_file(
            state | {"extra": torch.ones(1)}, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"}
        )
        with caplog.at_level(logging.WARNING):
            load_model(tmp_path / "m")
        assert "unexpected 1 weight (extra); they are left out." in caplog.text

    def test_a_weight_too_few(self, tmp_path):
        save_model(make(), tmp_path / "m")
        state = load_file(tmp_path / "m" / "model.safetensors")
        del state["unispeech.encoder.layer_norm.bias"]
        save_file(state, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            CheckpointError,
            match=r"missing 1 weight \(unispeech.encoder.layer_norm.bias\); copy or save the checkpoint ag",
        ):
            load_model(tmp_path / "m")

    @pytest.mark.parametrize(
        ("unexpected", "kind"),
        [
            (
                "classifier.weight",
                "they belong to a classification checkpoint, load it as UniSpeechForSequenceClass",
            ),
            (
                "quantizer.codevectors",
                "they belong to a pre-trained checkpoint, load it as UniSpeechForPreTraining",
            ),
            ("other", "they are left out"),
        ],
    )
    def test_kinds(self, unexpected, kind):
        info = {"missing_keys": set(), "mismatched_keys": set(), "unexpected_keys": {unexpected}}
        assert kind in describe_mismatch(info, "UniSpeechForCTC")

    def test_nothing_to_say(self):
        info = {"missing_keys": set(), "mismatched_keys": set(), "unexpected_keys": set()}
        assert describe_mismatch(info, "UniSpeechForCTC") == ""


class TestNoModel:
    """What is no model directory is named."""

    def test_without_configuration(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"must hold a model, but has no config.json"):
            load_model(tmp_path)

    def test_without_weights(self, tmp_path):
        UniSpeechConfig(**tiny()).save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"must hold weights, but has neither model.safetensors"):
            load_model(tmp_path)

    def test_a_file(self, tmp_path):
        (tmp_path / "x.pt").write_bytes(b"")
        with pytest.raises(
            CheckpointError, match=r"x\.pt: must be a model directory, but is a file.*unispeech convert"
        ):
            load_model(tmp_path / "x.pt")

    def test_nothing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nothing: no such model directory"):
            load_model(tmp_path / "nothing")

    def test_an_id_that_is_nowhere(self, tmp_path):
        with pytest.raises(CheckpointError, match="someone/nothing: cannot be loaded: ") as caught:
            load_model("someone/nothing", cache_dir=tmp_path, local_files_only=True)
        assert "\n" not in str(caught.value)

    def test_another_family(self, tmp_path):
        save_model(make(), tmp_path / "m")
        (tmp_path / "m" / "config.json").write_text('{"model_type": "wav2vec2"}')
        with pytest.raises(CheckpointError, match="`model_type` must be 'unispeech', but is 'wav2vec2'"):
            load_model(tmp_path / "m")

    def test_a_configuration_out_of_range(self, tmp_path):
        save_model(make(), tmp_path / "m")
        content = json.loads((tmp_path / "m" / "config.json").read_text())
        (tmp_path / "m" / "config.json").write_text(json.dumps(content | {"layerdrop": 2.0}))
        with pytest.raises(CheckpointError, match=r"config.json: .*layerdrop.*must lie in") as caught:
            load_model(tmp_path / "m")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_weights_that_are_cut_short(self, tmp_path, name):
        model = make()
        save_model(model, tmp_path / "m")
        if name == "pytorch_model.bin":
            (tmp_path / "m" / "model.safetensors").unlink()
            torch.save(model.state_dict(), tmp_path / "m" / name)
        whole = (tmp_path / "m" / name).read_bytes()
        (tmp_path / "m" / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="m: cannot be loaded: ") as caught:
            load_model(tmp_path / "m")
        assert "\n" not in str(caught.value)

    def test_a_bin_that_would_run_code(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'evidence'}",)

        save_model(make(), tmp_path / "m")
        (tmp_path / "m" / "model.safetensors").unlink()
        torch.save({"x": Payload()}, tmp_path / "m" / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_model(tmp_path / "m")
        assert not (tmp_path / "evidence").exists()


class TestSave:
    """Written beside, then renamed."""

    def test_with_a_vocabulary(self, tmp_path):
        save_model(make(), tmp_path / "a" / "m", VOCABULARY, do_normalize=False)
        assert Vocabulary.load(tmp_path / "a" / "m") == VOCABULARY
        assert not read_do_normalize(tmp_path / "a" / "m")
        assert (
            transformers.Wav2Vec2Processor.from_pretrained(tmp_path / "a" / "m").tokenizer.pad_token_id == 0
        )
        assert os.listdir(tmp_path / "a") == ["m"]

    def test_anyone_may_read_it_who_may_read_others(self, tmp_path):
        save_model(make(), tmp_path / "m")
        modes = {path.stat().st_mode for path in (tmp_path / "m").iterdir()}
        assert len(modes) == 1

    def test_other_files_are_kept(self, tmp_path):
        save_model(make(), tmp_path / "m", VOCABULARY, do_normalize=False)
        (tmp_path / "m" / "README.md").write_text("card")
        (tmp_path / "m" / "more").mkdir()
        (tmp_path / "m" / "more" / "x").write_text("x")
        (tmp_path / "m" / "pytorch_model.bin").write_text("stale")
        model = make()
        with torch.no_grad():
            model.lm_head.bias.fill_(3)
        save_model(model, tmp_path / "m")
        assert (tmp_path / "m" / "README.md").read_text() == "card"
        assert (tmp_path / "m" / "more" / "x").read_text() == "x"
        assert not (tmp_path / "m" / "pytorch_model.bin").exists()
        assert Vocabulary.load(tmp_path / "m") == VOCABULARY
        assert not read_do_normalize(tmp_path / "m")
        assert torch.equal(answer(load_model(tmp_path / "m")), answer(model))
        save_model(model, tmp_path / "m", do_normalize=True)
        assert read_do_normalize(tmp_path / "m")
        assert not (tmp_path / "m" / "processor_config.json").exists()
        assert os.listdir(tmp_path) == ["m"]

    def test_files_where_the_disk_has_no_links(self, tmp_path, monkeypatch):
        save_model(make(), tmp_path / "m")
        (tmp_path / "m" / "README.md").write_text("card")

        def refuse(*args, **kwargs):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        save_model(make(), tmp_path / "m")
        assert (tmp_path / "m" / "README.md").read_text() == "card"

    def test_what_belongs_to_it_comes_with_it(self, tmp_path):
        for state in ("1", "2"):
            save_model(
                make(), tmp_path / "m", write_more=lambda folder, s=state: (folder / "state").write_text(s)
            )
        assert (tmp_path / "m" / "state").read_text() == "2"

    @pytest.mark.parametrize("stage", ["weights", "vocabulary", "more", "links", "rename"])
    def test_a_full_disk_leaves_the_old_one(self, tmp_path, monkeypatch, stage):
        old, new = make(), make("UniSpeechForCTC", hidden_dropout=0.5)
        with torch.no_grad():
            new.lm_head.bias.fill_(3)
        save_model(old, tmp_path / "m", VOCABULARY)
        (tmp_path / "m" / "README.md").write_text("card")

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        def full_in_rust(*args, **kwargs):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        def full_at_the_second_rename(source, place, rename=os.replace):
            if str(source).endswith(".new"):
                full()
            rename(source, place)

        if stage == "weights":
            monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_in_rust)
        elif stage == "vocabulary":
            monkeypatch.setattr(Vocabulary, "save", full)
        elif stage == "links":
            monkeypatch.setattr(os, "link", full)
            monkeypatch.setattr(shutil, "copy2", full)
        elif stage == "rename":
            monkeypatch.setattr(huggingface.os, "replace", full_at_the_second_rename)
        with pytest.raises(OSError, match=r"m: the model cannot be saved: .*No space left on device"):
            save_model(new, tmp_path / "m", VOCABULARY, write_more=full if stage == "more" else None)
        monkeypatch.undo()
        assert os.listdir(tmp_path) == ["m"]
        assert torch.equal(answer(load_model(tmp_path / "m")), answer(old))
        assert (tmp_path / "m" / "README.md").read_text() == "card"

    def test_a_vocabulary_that_does_not_fit(self, tmp_path):
        with pytest.raises(
            CheckpointError, match=r"as many symbols as the head has classes \(4\), but has 3"
        ):
            save_model(make(), tmp_path / "m", Vocabulary.build(["a b"], kind="phones"))
        with pytest.raises(
            CheckpointError, match=r"blank at the config's `pad_token_id` \(2\), but has it at 0"
        ):
            save_model(make(pad_token_id=2), tmp_path / "m", VOCABULARY)
        assert not (tmp_path / "m").exists()

    def test_any_vocabulary_fits_a_model_without_a_head(self, tmp_path):
        save_model(make("UniSpeechModel"), tmp_path / "m", VOCABULARY)

    def test_the_working_directory_stays(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            ValueError, match=r"`directory` must not hold the working directory, but is '.'; name"
        ):
            save_model(make(), ".")

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        save_model(make(), tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "config.json").is_file()


def test_pre_training_is_loaded_with_its_head(tmp_path):
    save_model(make("UniSpeechForPreTraining"), tmp_path / "m")
    assert type(load_model(tmp_path / "m", head="pretraining")) is UniSpeechForPreTraining
