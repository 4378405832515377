"""Adapters: saved with what they belong to, and refused where they do not belong."""

import json
import logging

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2ForCTC
from transformers.models.wav2vec2 import Wav2Vec2Config

from unispeech.configuration import UniSpeechConfig
from unispeech.errors import CheckpointError
from unispeech.models import UniSpeechForCTC, adapters
from unispeech.models.adapters import fingerprint
from unispeech.text import Vocabulary

FRENCH = Vocabulary.build(["a b c d e"], kind="phones")
GERMAN = Vocabulary.build(["a b c ts"], kind="phones")
SIZES = {
    "vocab_size": len(FRENCH),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "adapter_attn_dim": 3,
}
WAVEFORMS = torch.randn(2, 400, generator=torch.Generator().manual_seed(1))

both_norms = pytest.mark.parametrize("is_pre_norm", [True, False], ids=["pre", "post"])


def make(seed: int = 0, **fields) -> UniSpeechForCTC:
    """A small model with adapters."""
    torch.manual_seed(seed)
    return UniSpeechForCTC(UniSpeechConfig(**SIZES | fields)).eval()


def shake(model: UniSpeechForCTC, seed: int) -> UniSpeechForCTC:
    """Give adapters and head values of their own, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in model.adapter_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def answer(model) -> torch.Tensor:
    with torch.no_grad():
        return model(WAVEFORMS).logits


@pytest.fixture
def base(tmp_path):
    """A directory with a model and the adapter of French."""
    model = make()
    model.save_pretrained(tmp_path / "m")
    shake(model, 1).save_adapter(tmp_path / "m", "fra", FRENCH)
    return tmp_path / "m"


def add_german(base) -> torch.Tensor:
    """Put an adapter with a smaller head into the directory; the answer of its model."""
    model = UniSpeechForCTC.from_pretrained(base, vocab_size=len(GERMAN), ignore_mismatched_sizes=True)
    shake(model, 2).save_adapter(base, "deu", GERMAN)
    return answer(model)


@both_norms
class TestLoading:
    def test_a_saved_adapter_comes_back(self, tmp_path, is_pre_norm):
        model = make(do_stable_layer_norm=is_pre_norm)
        model.save_pretrained(tmp_path)
        shake(model, 1).save_adapter(tmp_path, "fra", FRENCH)
        expected = answer(model)
        fresh = UniSpeechForCTC.from_pretrained(tmp_path)
        assert not torch.equal(answer(fresh), expected)
        assert fresh.load_adapter("fra") is None
        assert torch.equal(answer(fresh), expected)
        assert fresh.target_lang == "fra"
        assert fresh.adapter_vocabulary == FRENCH

    def test_with_the_model(self, tmp_path, is_pre_norm):
        model = make(do_stable_layer_norm=is_pre_norm)
        model.save_pretrained(tmp_path)
        shake(model, 1).save_adapter(tmp_path, "fra", FRENCH)
        assert torch.equal(
            answer(UniSpeechForCTC.from_pretrained(tmp_path, target_lang="fra")), answer(model)
        )

    def test_into_a_model_made_of_a_configuration(self, tmp_path, is_pre_norm):
        model = make(do_stable_layer_norm=is_pre_norm)
        shake(model, 1).save_adapter(tmp_path, "fra", FRENCH)
        config = UniSpeechConfig(**SIZES, do_stable_layer_norm=is_pre_norm)
        config._name_or_path = str(tmp_path)
        torch.manual_seed(0)
        assert torch.equal(answer(UniSpeechForCTC(config, target_lang="fra").eval()), answer(model))

    def test_transformers_reads_the_files(self, tmp_path, is_pre_norm):
        """Another family of the same layout takes the file: names and format are transformers'."""
        model = make(do_stable_layer_norm=is_pre_norm)
        path = shake(model, 1).save_adapter(tmp_path, "fra", FRENCH)
        weights = {key.replace("unispeech.", "wav2vec2."): tensor for key, tensor in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})
        stock = Wav2Vec2ForCTC(Wav2Vec2Config(**SIZES | {"do_stable_layer_norm": True})).eval()
        stock.config._name_or_path = str(tmp_path)
        stock.load_adapter("fra")
        assert torch.equal(stock.lm_head.weight, model.lm_head.weight)


class TestHeads:
    def test_a_head_of_another_size_replaces_it(self, base):
        expected = add_german(base)
        model = UniSpeechForCTC.from_pretrained(base, target_lang="deu")
        assert torch.equal(answer(model), expected)
        assert model.config.vocab_size == model.lm_head.out_features == len(GERMAN)
        assert model.unispeech.config.vocab_size == len(GERMAN)
        model.load_adapter("fra")
        assert model.config.vocab_size == model.lm_head.out_features == len(FRENCH)
        assert model.adapter_vocabulary == FRENCH

    def test_the_blank_follows(self, base):
        vocabulary = Vocabulary(symbols=("a", "b", "c", "d", "e", "<pad>"), blank=5, kind="phones")
        model = UniSpeechForCTC.from_pretrained(base, pad_token_id=5)
        model.save_adapter(base, "ita", vocabulary)
        model = UniSpeechForCTC.from_pretrained(base)
        assert model.config.pad_token_id == 0
        model.load_adapter("ita")
        assert model.config.pad_token_id == 5

    def test_dtype_and_gradient_settings_stay(self, base):
        add_german(base)
        model = UniSpeechForCTC.from_pretrained(base, dtype=torch.bfloat16)
        model.lm_head.requires_grad_(False)
        model.load_adapter("deu")
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert not model.lm_head.weight.requires_grad


class TestOnce:
    """An adapter that training has changed is not read again behind its back."""

    def test_tied_again(self, base):
        model = shake(UniSpeechForCTC.from_pretrained(base, target_lang="fra"), 7)
        expected = answer(model)
        model.tie_weights()
        assert torch.equal(answer(model), expected)

    def test_not_forced(self, base):
        model = shake(UniSpeechForCTC.from_pretrained(base, target_lang="fra"), 7)
        expected = answer(model)
        model.load_adapter("fra", force_load=False)
        assert torch.equal(answer(model), expected)
        model.load_adapter("fra")
        assert not torch.equal(answer(model), expected)


class TestSources:
    def test_another_directory(self, base, tmp_path):
        model = UniSpeechForCTC.from_pretrained(base)
        (tmp_path / "elsewhere").mkdir()
        (base / "adapter.fra.safetensors").rename(tmp_path / "elsewhere" / "adapter.fra.safetensors")
        with pytest.raises(CheckpointError, match=r"m: must have an adapter of 'fra' .*but has none"):
            model.load_adapter("fra")
        model.load_adapter("fra", source=tmp_path / "elsewhere")

    def test_a_bin_file(self, base, caplog):
        expected = answer(UniSpeechForCTC.from_pretrained(base, target_lang="fra"))
        path = base / "adapter.fra.safetensors"
        torch.save(load_file(path), base / "adapter.fra.bin")
        path.unlink()
        with caplog.at_level(logging.WARNING):
            model = UniSpeechForCTC.from_pretrained(base, target_lang="fra")
        assert torch.equal(answer(model), expected)
        assert model.adapter_vocabulary is None
        assert "adapter.fra.bin: states no vocabulary and no base model; neither is checked." in caplog.text

    def test_the_format_can_be_chosen(self, base):
        torch.save(load_file(base / "adapter.fra.safetensors"), base / "adapter.fra.bin")
        model = UniSpeechForCTC.from_pretrained(base)
        model.load_adapter("fra", use_safetensors=True)
        assert model.adapter_vocabulary == FRENCH
        model.load_adapter("fra", use_safetensors=False)
        assert model.adapter_vocabulary is None
        (base / "adapter.fra.bin").unlink()
        with pytest.raises(
            CheckpointError, match=r"adapter of 'fra' \(adapter.fra.bin\), but has those of fra"
        ):
            model.load_adapter("fra", use_safetensors=False)

    @pytest.mark.parametrize("suffix", ["safetensors", "bin"])
    def test_the_hub(self, base, tmp_path, suffix):
        expected = answer(UniSpeechForCTC.from_pretrained(base, target_lang="fra"))
        if suffix == "bin":
            torch.save(load_file(base / "adapter.fra.safetensors"), base / "adapter.fra.bin")
            (base / "adapter.fra.safetensors").unlink()
        commit = "0" * 40
        repository = tmp_path / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots").mkdir()
        base.rename(repository / "snapshots" / commit)
        options = {"cache_dir": tmp_path, "local_files_only": True}
        model = UniSpeechForCTC.from_pretrained("someone/tiny", target_lang="fra", **options)
        assert torch.equal(answer(model), expected)
        with pytest.raises(
            CheckpointError, match="someone/tiny: must have an adapter of 'deu', but has none"
        ):
            model.load_adapter("deu", **options)

    def test_options_reach_the_hub(self, base, monkeypatch):
        seen = {}

        def download(source, name, **options):
            seen.update(options, source=source, name=name)
            return str(base / name)

        monkeypatch.setattr("unispeech.models.adapter_files.hf_hub_download", download)
        UniSpeechForCTC.from_pretrained(base).load_adapter(
            "fra", source="a/b", revision="r", token="t", proxies={}
        )
        assert seen == {"source": "a/b", "name": "adapter.fra.safetensors", "revision": "r", "token": "t"}

    def test_no_source(self):
        with pytest.raises(
            CheckpointError, match="`source` must be a directory or a Hub id that has adapters, but is ''"
        ):
            make().load_adapter("fra", local_files_only=True)

    def test_the_nearest_language_is_named(self, base):
        with pytest.raises(CheckpointError, match=r"but has those of fra; did you mean 'fra'\?"):
            UniSpeechForCTC.from_pretrained(base, target_lang="frx")


class TestMismatch:
    """A file that does not belong here is an error, and the model stays as it was."""

    @pytest.fixture
    def check(self, base):
        def check(message, model=None, **kwargs):
            model = UniSpeechForCTC.from_pretrained(base) if model is None else model
            before = answer(model)
            with pytest.raises(CheckpointError, match=message) as caught:
                model.load_adapter("fra", source=base, **kwargs)
            assert "\n" not in str(caught.value)
            assert torch.equal(answer(model), before)
            assert model.target_lang is None

        return check

    def rewrite(self, base, change=lambda weights: weights, **statements):
        path = base / "adapter.fra.safetensors"
        with safe_open(path, "pt") as file:
            stated = file.metadata() | statements
        save_file(change(load_file(path)), path, metadata=stated)

    def test_another_base_model(self, check):
        check("the base model must be the one that it was trained on", make(seed=5))

    def test_a_base_model_that_was_trained_on(self, base, check):
        model = UniSpeechForCTC.from_pretrained(base)
        with torch.no_grad():
            model.unispeech.encoder.layers[0].attention.k_proj.bias += 0.1
        check(r"trained on \([0-9a-f]{12}\), but is [0-9a-f]{12}", model)

    def test_the_same_base_model_in_bfloat16(self, base):
        model = UniSpeechForCTC.from_pretrained(base, dtype=torch.bfloat16)
        model.load_adapter("fra")

    def test_the_same_base_model_without_masks(self, base):
        UniSpeechForCTC.from_pretrained(base, mask_time_prob=0.0, target_lang="fra")

    def test_another_language(self, base):
        (base / "adapter.fra.safetensors").rename(base / "adapter.deu.safetensors")
        with pytest.raises(
            CheckpointError, match=r"adapter.deu.safetensors: the language must be 'deu', but is 'fra'"
        ):
            UniSpeechForCTC.from_pretrained(base, target_lang="deu")

    def test_another_vocabulary_than_asked_for(self, check):
        other = Vocabulary.build(["a b x d e"], kind="phones")
        check(
            "its vocabulary must be that of `vocabulary`, but symbol 3 is 'c' instead of 'd'",
            vocabulary=other,
        )

    def test_fewer_symbols_than_asked_for(self, check):
        check("a class for each of the 5 symbols of `vocabulary`, but has 6", vocabulary=GERMAN)

    def test_another_vocabulary_than_its_directory_lists(self, base, check):
        ids = {symbol: index for index, symbol in enumerate(FRENCH.symbols)}
        (base / "vocab.json").write_text(json.dumps({"deu": {"<pad>": 0}, "fra": ids}))
        UniSpeechForCTC.from_pretrained(base, target_lang="fra")
        ids["e"], ids["d"] = ids["d"], ids["e"]
        (base / "vocab.json").write_text(json.dumps({"deu": {"<pad>": 0}, "fra": ids}))
        check("its vocabulary must be that of vocab.json, but symbol 4 is 'd' instead of 'e'")

    def test_a_vocabulary_of_another_size_than_its_head(self, base, check):
        self.rewrite(
            base,
            lambda weights: weights | {"lm_head.weight": torch.ones(4, 16), "lm_head.bias": torch.ones(4)},
        )
        check("a class for each of the 6 symbols of its own vocabulary, but has 4")

    def test_a_file_by_others_of_another_size_than_the_vocabulary(self, base, check):
        torch.save(load_file(base / "adapter.fra.safetensors"), base / "adapter.fra.bin")
        (base / "adapter.fra.safetensors").unlink()
        (base / "vocab.json").write_text(json.dumps({"fra": {"<pad>": 0, "a": 1}}))
        check(
            "adapter.fra.bin: the head must have a class for each of the 2 symbols of vocab.json, but has 6"
        )

    def test_missing_weights(self, base, check):
        self.rewrite(base, lambda weights: {key: weights[key] for key in weights if "layers.0" in key})
        check(r"missing 8 weights \(lm_head.bias, lm_head.weight, unispeech.encoder.layers.1.*and more\)")

    def test_unexpected_weights(self, base, check):
        self.rewrite(base, lambda weights: weights | {"x": torch.ones(1)})
        check(r"unexpected 1 weights \(x\)")

    def test_adapters_of_another_width(self, base, check):
        name = "unispeech.encoder.layers.0.adapter_layer.linear_1.weight"
        self.rewrite(base, lambda weights: weights | {name: torch.ones(4, 16)})
        check(rf"`{name}` must have shape \(3, 16\), but has \(4, 16\)")

    @pytest.mark.parametrize(
        "vocabulary", ["{", "{}", "3", '{"symbols": ["a", "a"], "special": [], "blank": 0}']
    )
    def test_a_broken_statement(self, base, check, vocabulary):
        self.rewrite(base, vocabulary=vocabulary)
        check("adapter.fra.safetensors: must be an adapter file, but cannot be read")

    @pytest.mark.parametrize("content", [b"", b"{}" * 40])
    @pytest.mark.parametrize("suffix", ["safetensors", "bin"])
    def test_a_file_that_is_none(self, base, check, suffix, content):
        (base / "adapter.fra.safetensors").unlink()
        (base / f"adapter.fra.{suffix}").write_bytes(content)
        check("must be an adapter file, but cannot be read")

    @pytest.mark.parametrize("content", [[1], {"lm_head.weight": 1}])
    def test_a_bin_without_tensors(self, base, check, content):
        (base / "adapter.fra.safetensors").unlink()
        torch.save(content, base / "adapter.fra.bin")
        check(r"cannot be read \(it holds no dictionary of tensors\)")

    def test_a_bin_that_would_run_code(self, base, check, tmp_path):
        class Payload:
            def __reduce__(self):
                import os

                return os.system, (f"touch {tmp_path / 'evidence'}",)

        (base / "adapter.fra.safetensors").unlink()
        torch.save({"x": Payload()}, base / "adapter.fra.bin")
        check("must be an adapter file, but cannot be read")
        assert not (tmp_path / "evidence").exists()


class TestArguments:
    @pytest.mark.parametrize(
        "call",
        [
            lambda model, folder: model.load_adapter("fra"),
            lambda model, folder: model.init_adapter_layers(),
            lambda model, folder: model.save_adapter(folder, "fra", FRENCH),
        ],
    )
    def test_a_model_without_adapters(self, tmp_path, call):
        with pytest.raises(ValueError, match=r"`adapter_attn_dim` must be set for .*, but is None"):
            call(make(adapter_attn_dim=None), tmp_path)

    def test_target_lang_of_a_model_without_adapters(self, tmp_path):
        make(adapter_attn_dim=None).save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match="`adapter_attn_dim` must be set for target_lang='fra', but is None"
        ):
            UniSpeechForCTC.from_pretrained(tmp_path, target_lang="fra")

    def test_an_unknown_option(self, base):
        with pytest.raises(
            ValueError, match="`revisoin` must be an option of the Hub, but is none; did you mean 'revision'"
        ):
            UniSpeechForCTC.from_pretrained(base).load_adapter("fra", revisoin="main")

    @pytest.mark.parametrize("language", ["", "../fra", "fra.x"])
    def test_a_language_that_is_no_name(self, tmp_path, language):
        with pytest.raises(ValueError, match="`target_lang` must hold letters, digits, - and _ only"):
            make().save_adapter(tmp_path, language, FRENCH)

    def test_a_vocabulary_that_does_not_fit_the_head(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"as the head has classes \(6\), but has 5"):
            make().save_adapter(tmp_path, "deu", GERMAN)


class TestPeft:
    """PreTrainedModel's own method of the same name stays reachable."""

    @pytest.fixture
    def lora(self, tmp_path):
        peft = pytest.importorskip("peft")
        model = make(adapter_attn_dim=None)
        model.save_pretrained(tmp_path / "plain")
        torch.manual_seed(3)
        config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        wrapped = peft.get_peft_model(model, config)
        wrapped.save_pretrained(tmp_path / "lora")
        return tmp_path, answer(wrapped)

    @pytest.mark.parametrize(
        "load",
        [
            lambda model, lora: model.load_adapter(lora),
            lambda model, lora: model.load_adapter(lora, "mine"),
            lambda model, lora: model.load_adapter(peft_model_id=lora),
            lambda model, lora: model.load_adapter(lora, adapter_name="mine"),
        ],
    )
    def test_by_its_arguments(self, lora, load):
        folder, expected = lora
        model = UniSpeechForCTC.from_pretrained(folder / "plain")
        load(model, str(folder / "lora"))
        torch.testing.assert_close(answer(model), expected)

    def test_by_from_pretrained(self, lora):
        folder, expected = lora
        config = json.loads((folder / "lora" / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(folder / "plain")
        (folder / "lora" / "adapter_config.json").write_text(json.dumps(config))
        torch.testing.assert_close(answer(UniSpeechForCTC.from_pretrained(folder / "lora")), expected)


class TestFreshLayers:
    @both_norms
    def test_every_one_is_drawn_anew_and_nothing_else(self, tmp_path, is_pre_norm):
        model = shake(make(do_stable_layer_norm=is_pre_norm), 3)
        model.save_pretrained(tmp_path)
        model = UniSpeechForCTC.from_pretrained(tmp_path)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.init_adapter_layers()
        changed = {
            name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
        }
        assert changed == dict(model.adapter_parameters()).keys()
        layer = model.unispeech.encoder.layers[0].adapter_layer
        assert torch.equal(layer.norm.weight, torch.ones(16))
        assert 0 < layer.linear_1.weight.std() < 0.05

    def test_they_train_alone(self, base):
        model = UniSpeechForCTC.from_pretrained(base)
        model.init_adapter_layers()
        model.freeze_base_model()
        for _, parameter in model.adapter_parameters():
            parameter.requires_grad = True
        before = fingerprint(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(WAVEFORMS, labels=torch.tensor([[1, 2], [3, 4]])).loss.backward()
        optimizer.step()
        assert all(parameter.grad is not None for _, parameter in model.adapter_parameters())
        assert fingerprint(model) == before
        model.save_adapter(base, "ita", FRENCH)
        assert torch.equal(
            answer(UniSpeechForCTC.from_pretrained(base, target_lang="ita")), answer(model.eval())
        )


class TestSaving:
    def test_the_file_states_what_it_belongs_to(self, base):
        with safe_open(base / "adapter.fra.safetensors", "pt") as file:
            stated = file.metadata()
        assert stated["target_lang"] == "fra"
        assert stated["base_model"] == fingerprint(make())
        assert json.loads(stated["vocabulary"])["symbols"] == list(FRENCH.symbols)

    def test_a_full_disk_leaves_the_old_one(self, base, monkeypatch):
        model = UniSpeechForCTC.from_pretrained(base, target_lang="fra")
        expected = answer(model)

        def full(*args, **kwargs):
            raise SafetensorError("No space left on device")

        monkeypatch.setattr(adapters, "save_file", full)
        with pytest.raises(OSError, match=r"adapter.fra.safetensors: the adapter cannot be saved: No space"):
            shake(model, 9).save_adapter(base, "fra", FRENCH)
        assert [path.name for path in base.glob(".*")] == []
        assert torch.equal(answer(UniSpeechForCTC.from_pretrained(base, target_lang="fra")), expected)

    def test_others_may_read_it(self, base):
        (base / "plain").touch()
        assert (base / "adapter.fra.safetensors").stat().st_mode == (base / "plain").stat().st_mode


def test_a_base_checkpoint_without_adapters_takes_one(tmp_path, caplog):
    """Adapter weights that only the adapter file has are not reported as missing."""
    model = make()
    model.save_pretrained(tmp_path)
    shake(model, 1).save_adapter(tmp_path, "fra", FRENCH)
    state = load_file(tmp_path / "model.safetensors")
    bare = {
        key: tensor for key, tensor in state.items() if ".adapter_layer." not in key and "lm_head" not in key
    }
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = UniSpeechForCTC.from_pretrained(tmp_path, target_lang="fra", output_loading_info=True)
    assert info["missing_keys"] == set()
    assert torch.equal(answer(loaded), answer(model))
