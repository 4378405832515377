"""The engines that run graphs, held to the plain path."""

import copy
import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from tiny_recognisers import PHONES, babble, save_recogniser
from unispeech import Transcriber, UniSpeechForCTC
from unispeech.engines import cache, choice
from unispeech.engines.choice import cached, choose, open_engine
from unispeech.engines.engine import WindowMoments, measure_moments
from unispeech.engines.graph_engine import on_grid
from unispeech.engines.network import recogniser_of
from unispeech.engines.torch_engine import TorchEngine
from unispeech.frames import num_frames

pytest.importorskip("openvino", reason="needs the extra openvino")

from unispeech.engines import openvino_engine
from unispeech.engines.openvino_engine import OpenvinoEngine, core, look_at, serialised
from unispeech.engines.openvino_graph import draw_openvino
from unispeech.engines.quantisation import find_limits, see_places, speech

NORMS = ["group", "layer"]
CHECKPOINT = Path(__file__).parents[2] / "examples/checkpoint"


def graph_engine(model, precision="auto", engine="openvino"):
    return open_engine(model, None, engine=engine, precision=precision)


@pytest.fixture(scope="module", params=[(engine, norm) for engine in choice.EXTRAS for norm in NORMS])
def pair(request):
    engine, norm = request.param
    pytest.importorskip(engine)
    model = tiny.build(UniSpeechForCTC, norm)
    return TorchEngine(model), graph_engine(model, engine=engine)


def noise(length, seed=0):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


# -- the same numbers ----------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(0, 24_000), min_size=1, max_size=4))
def test_log_probs_are_those_of_torch(pair, lengths):
    plain, engine = pair
    waveforms = [noise(length, seed) for seed, length in enumerate(lengths)]
    for waveform, found in zip(waveforms, engine.log_probs(waveforms), strict=True):
        frames = num_frames(len(waveform), engine.kernels, engine.strides)
        assert found.shape == (frames, engine.num_symbols)
        assert found.dtype == np.float32
        if frames:
            [expected] = plain.log_probs([waveform])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_side_by_side_is_as_one_by_one(pair, monkeypatch):
    _, engine = pair
    monkeypatch.setattr(openvino_engine, "MANY", 0)  # else only after a minute
    waveforms = [noise(length, length) for length in (9000, 100, 24_000, 5000, 23_990, 700, 16_000)]
    together = engine.log_probs(waveforms)
    kept = copy.deepcopy(together)
    for waveform, found in zip(waveforms, together, strict=True):
        np.testing.assert_allclose(found, engine.log_probs([waveform])[0], rtol=0, atol=1e-4)
    engine.log_probs(waveforms[::-1])
    for found, before in zip(together, kept, strict=True):
        np.testing.assert_array_equal(found, before)


def test_utterances_run_one_by_one_until_they_are_many(monkeypatch):
    engine = graph_engine(tiny.build(UniSpeechForCTC, "group"))
    monkeypatch.setattr(openvino_engine, "MANY", 40_000)
    waveforms = [noise(9000), noise(12_000)]
    for is_alone in (True, False):
        engine.start(waveforms)()
        assert ("_side_by_side" in vars(engine)) is not is_alone
        assert (engine.num_ahead == 0) is is_alone
    assert engine.num_ahead <= openvino_engine.MAX_STREAMS


def test_heavy_networks_run_one_utterance_after_the_other(monkeypatch):
    monkeypatch.setattr(openvino_engine, "MANY", 0)
    monkeypatch.setattr(openvino_engine, "MAX_WEIGHTS", 100)
    engine = graph_engine(tiny.build(UniSpeechForCTC, "group"))
    found = engine.start([noise(9000), noise(12_000)])()
    assert [len(log_probs) > 0 for log_probs in found] == [True, True]
    assert engine.num_ahead == 0
    assert "_side_by_side" not in vars(engine)


def test_one_alone_gets_all_threads(monkeypatch):
    engine = graph_engine(tiny.build(UniSpeechForCTC, "group"))
    monkeypatch.setattr(openvino_engine, "MANY", 0)
    engine.log_probs([noise(9000)])
    assert "_side_by_side" not in vars(engine)


def test_what_is_started_and_given_up_harms_nothing(monkeypatch):
    engine = graph_engine(tiny.build(UniSpeechForCTC, "group"))
    monkeypatch.setattr(openvino_engine, "MANY", 0)
    waveforms = [noise(16_000 * 5, seed) for seed in range(4)]
    expected = engine.start(waveforms)()
    for _ in range(5):
        engine.start(waveforms)
        gc.collect()
    for one, other in zip(engine.start(waveforms)(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_threads_that_start_side_by_side_get_their_own(pair, monkeypatch):
    _, engine = pair
    monkeypatch.setattr(openvino_engine, "MANY", 0)
    waveforms = [noise(8000 + 640 * number, number) for number in range(4)]
    expected = [engine.log_probs([waveform])[0] for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda waveform: engine.start([waveform])()[0], waveforms)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_threads_take_turns(pair):
    _, engine = pair
    waveforms = [noise(8000 + 640 * number, number) for number in range(4)]
    expected = [engine.log_probs([waveform])[0] for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda waveform: engine.log_probs([waveform])[0], waveforms)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "overrides",
    [{"adapter_attn_dim": 8}, {"num_conv_pos_embeddings": 15}, {"hidden_act": "relu"}, {"conv_bias": True}],
)
def test_every_kind_of_layer(overrides):
    model = tiny.build(UniSpeechForCTC, "layer", **overrides)
    waveform = noise(9000)
    [expected] = TorchEngine(model).log_probs([waveform])
    np.testing.assert_allclose(graph_engine(model).log_probs([waveform])[0], expected, rtol=0, atol=1e-4)


def test_windows_take_the_moments_that_are_given(pair):
    plain, engine = pair
    if not engine.has_group_norm:
        pytest.skip("only group norm takes moments")
    whole = noise(20_000) * np.linspace(0.1, 2.0, 20_000, dtype=np.float32)
    moments = measure_moments(whole, engine.kernels[0], engine.strides[0])
    [expected] = plain.log_probs([whole[:8000]], moments=moments)
    [found] = engine.log_probs([whole[:8000]], moments=moments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(found - engine.log_probs([whole[:8000]])[0]).max() > 0.01


def test_moments_are_those_of_the_windows():
    waveform = noise(1003)
    rows = np.stack([waveform[start : start + 10] for start in range(0, 1003 - 9, 5)]).astype(np.float64)
    moments = measure_moments(waveform, 10, 5)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0))
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True))
    assert isinstance(moments, WindowMoments)


def test_padding_to_the_grid_is_small():
    rng = np.random.default_rng(0)
    frames = [num_frames(int(16_000 * seconds)) for seconds in rng.uniform(1, 20, size=200)]
    assert sum(map(on_grid, frames)) / sum(frames) < 1.03
    assert all(on_grid(count) >= count for count in range(1, 1100))
    assert on_grid(999) == 1000  # a window of 20 s
    # Most of what a new length costs is the same for all of them.
    assert len(set(map(on_grid, range(50, 1000)))) == 60


@pytest.mark.parametrize("engine", choice.EXTRAS)
@pytest.mark.parametrize("norm", NORMS)
def test_int8_names_the_same_symbols(norm, engine):
    pytest.importorskip(engine)
    model = tiny.build(UniSpeechForCTC, norm, hidden_size=64, conv_dim=(32,) * 7)
    waveform = babble(2.0)
    [expected] = TorchEngine(model).log_probs([waveform])
    narrow = graph_engine(model, "int8", engine)
    [found] = narrow.log_probs([waveform])
    assert (narrow.name, narrow.precision) == (engine, "int8")
    assert np.abs(found - expected).max() > 0
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    [again] = narrow.log_probs([babble(0.5, 1)])
    assert np.isfinite(again).all() and len(again) == 24


def open_openvino(recogniser, limits):
    return OpenvinoEngine(serialised(recogniser, limits), "int8" if limits else "float32")


def open_onnx(recogniser, limits):
    onnx_engine = pytest.importorskip("unispeech.engines.onnx_engine", exc_type=ImportError)
    limits = {place: found for place, found in limits.items() if found.means is not None}
    return onnx_engine.OnnxEngine(onnx_engine.drawn(recogniser, limits), "int8" if limits else "float32")


@pytest.mark.parametrize("opened", [open_openvino, open_onnx])
def test_int8_says_what_the_carried_checkpoint_says(opened):
    recogniser = recogniser_of(UniSpeechForCTC.from_pretrained(CHECKPOINT))
    plain = opened(recogniser, {})
    shown, kept = speech()[:4], [np.concatenate([s * np.float32(0.02), s]) for s in speech()[4:]]
    limits = find_limits(see_places(plain, shown, look_at(recogniser)), is_uneven=True)
    found = np.concatenate(opened(recogniser, limits).log_probs(kept))
    expected = np.concatenate(plain.log_probs(kept))
    divergence = (np.exp(expected) * (expected - found)).sum(axis=1).mean()
    agreement = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
    # 0.0056 in ONNX Runtime with the checkpoint of the eleventh session, 0.0037 before: no place is left at
    # float32 here, unlike in an engine that is made, which is held to 0.003 by `choose_narrow`.
    assert divergence < 0.007
    assert agreement > 0.99


def test_both_engines_see_the_same_places():
    onnx_engine = pytest.importorskip("unispeech.engines.onnx_engine", exc_type=ImportError)
    recogniser = recogniser_of(tiny.build(UniSpeechForCTC, "group"))
    plain = open_openvino(recogniser, {})
    [one] = see_places(plain, speech()[:1], look_at(recogniser))
    [other] = see_places(plain, speech()[:1], onnx_engine.look_at(recogniser))
    assert one.keys() == other.keys() and "conv.1" in one
    for place, values in one.items():
        np.testing.assert_allclose(other[place], values, atol=1e-4)


def test_nothing_of_8_bits_has_a_zero_point():
    # Each costs a pass over its place, or makes the product a fifth slower.
    recogniser = recogniser_of(tiny.build(UniSpeechForCTC, "group", hidden_size=64, conv_dim=(32,) * 7))
    plain = OpenvinoEngine(serialised(recogniser, {}), "float32")
    limits = find_limits(see_places(plain, speech(), look_at(recogniser)), is_uneven=True)
    compiled = core().compile_model(draw_openvino(recogniser, limits), "CPU")
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    names = [node["originalLayersNames"].astype(str) for node in nodes if "originalLayersNames" in node]
    assert any("DequantizationMultiply" in name for name in names)
    assert not [name for name in names if "DequantizationSubtract" in name]


# -- choosing ------------------------------------------------------------------------------------------------


def test_auto_takes_the_graph_for_a_directory_and_torch_for_a_model(tmp_path):
    folder = save_recogniser(tmp_path / "model")
    transcriber = Transcriber(folder, device="cpu")
    assert (transcriber.engine.name, transcriber.engine.precision) == ("openvino", "float32")
    network = Transcriber(folder, engine="torch").engine.model
    assert Transcriber(network, vocabulary=PHONES).engine.name == "torch"


def test_auto_goes_back_to_torch(tmp_path, monkeypatch):
    folder = save_recogniser(tmp_path / "odd", hidden_act="gelu_10")
    assert Transcriber(folder, device="cpu").engine.name == "torch"
    with pytest.raises(ValueError, match=r"`hidden_act` must be one of gelu, .* but is 'gelu_10'; run it by"):
        Transcriber(folder, engine="openvino")
    monkeypatch.setattr(choice, "is_installed", lambda name: False)
    assert choose("auto", "cpu", is_on_disk=True) == "torch"
    assert choose("int8", "cpu", is_on_disk=True) == "openvino"
    monkeypatch.setattr(choice, "is_installed", lambda name: name == "onnxruntime")
    assert choose("int8", "cpu", is_on_disk=True) == "onnxruntime"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "openvno"}, "`engine` must be one of auto, .* but is 'openvno'; did you mean 'openvino'"),
        (
            {"engine": "onnxruntime", "precision": "bf16"},
            "`precision` must be auto, float32 or int8 for engine onnxruntime, but is bf16; engine openv",
        ),
        ({"precision": "int9"}, "`precision` must be one of auto, .* but is 'int9'"),
        (
            {"engine": "torch", "precision": "int8"},
            "`precision` must be auto, float32 or bf16 for engine torch",
        ),
        (
            {"engine": "openvino", "device": "cuda"},
            "`device` must be auto or cpu for engine openvino, but is",
        ),
    ],
)
def test_what_does_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        open_engine(tiny.build(UniSpeechForCTC), None, **arguments)


def test_bf16_is_not_pretended(monkeypatch):
    monkeypatch.setattr("unispeech.engines.openvino_engine.has_bf16", lambda: False)
    model = tiny.build(UniSpeechForCTC)
    with pytest.raises(ValueError, match="`precision` must be auto, float32 or int8 on this processor"):
        graph_engine(model, "bf16")
    assert open_engine(model, None, precision="bf16").name == "torch"


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(choice, "is_installed", lambda name: False)
    message = r"engine openvino is not installed; install it with pip install 'unispeech\[openvino\]'"
    with pytest.raises(ImportError, match=message):
        graph_engine(tiny.build(UniSpeechForCTC))


# -- the cache -----------------------------------------------------------------------------------------------


def cache_file(folder):
    return folder / "engines" / "openvino-float32.engine"


def test_a_cached_engine_imports_neither_torch_nor_transformers(tmp_path):
    folder = save_recogniser(tmp_path / "model")
    waveform = babble(0.7)
    expected = Transcriber(folder, engine="openvino").transcribe(waveform, 16000).text
    np.save(tmp_path / "waveform.npy", waveform)
    code = (
        "import sys, numpy; from unispeech.pipelines.transcriber import Transcriber\n"
        f"transcriber = Transcriber({str(folder)!r}, engine='openvino')\n"
        f"print(transcriber.transcribe(numpy.load({str(tmp_path / 'waveform.npy')!r}), 16000).text)\n"
        "print([m for m in ('torch', 'transformers', 'openvino_telemetry') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [expected, "[]"]


def test_another_checkpoint_makes_another_engine(tmp_path):
    folder = save_recogniser(tmp_path / "model")
    first = Transcriber(folder, engine="openvino").engine.log_probs([babble(0.5)])[0]
    before = cache_file(folder).read_bytes()
    save_recogniser(folder, seed=1)
    second = Transcriber(folder, engine="openvino").engine.log_probs([babble(0.5)])[0]
    assert np.abs(first - second).max() > 0.1
    assert cache_file(folder).read_bytes() != before


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign", "empty", "other version"])
def test_a_broken_or_foreign_file_is_replaced(tmp_path, harm):
    folder = save_recogniser(tmp_path / "model")
    expected = Transcriber(folder, engine="openvino").engine.log_probs([babble(0.5)])[0]
    path = cache_file(folder)
    whole = path.read_bytes()
    first, _, rest = whole.partition(b"\n")
    path.write_bytes(
        {
            "cut": whole[:-10],
            "changed": whole[:-10] + bytes(10),
            "foreign": b"PK\x03\x04" + whole,
            "empty": b"",
            "other version": json.dumps({**json.loads(first), "key": {}}).encode() + b"\n" + rest,
        }[harm]
    )
    found = Transcriber(folder, engine="openvino").engine.log_probs([babble(0.5)])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    key = json.loads(first)["key"]
    assert cache.read(path, key) is not None


def test_two_at_once_leave_one_whole_file(tmp_path):
    folder = save_recogniser(tmp_path / "model")
    code = f"from unispeech import Transcriber; Transcriber({str(folder)!r}, engine='openvino')"
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(subprocess.run, [sys.executable, "-c", code], check=True) for _ in range(2)]
    assert [run.result().returncode for run in runs] == [0, 0]
    assert [path.name for path in (folder / "engines").iterdir()] == ["openvino-float32.engine"]
    key = json.loads(cache_file(folder).open("rb").readline())["key"]
    assert cache.read(cache_file(folder), key) is not None


def test_a_checkpoint_that_may_only_be_read_is_cached_elsewhere(tmp_path, monkeypatch):
    folder = save_recogniser(tmp_path / "model")
    (folder / "engines").write_text("in the way")  # whoever runs as root may write everywhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Transcriber(folder, engine="openvino")
    [path] = (tmp_path / "cache").rglob("*.engine")
    before = os.stat(path).st_mtime_ns
    made = cached("openvino", "float32", folder, lambda: pytest.fail("it is in the cache"))
    assert made.facts.num_symbols == len(PHONES)
    assert os.stat(path).st_mtime_ns == before
    path.parent.rename(path.parent.with_name("gone"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "config.json"))
    assert Transcriber(folder, engine="openvino").engine.name == "openvino"


def test_weights_are_taken_as_they_are():
    model = tiny.build(UniSpeechForCTC)
    recogniser = recogniser_of(model)
    assert all(np.array_equal(recogniser.weights[n], v) for n, v in model.state_dict().items())
    assert recogniser.num_symbols == torch.nn.Module.get_submodule(model, "lm_head").out_features


def test_sound_without_high_frequencies(pair):
    # The variance of a high-pass channel is 1e-7 of what its taps see: float32 products lose it.
    plain, engine = pair
    slow = np.cumsum(np.cumsum(noise(16_000)) * np.hanning(16_000))
    slow = np.convolve(slow, np.hanning(301), mode="same")
    slow = (slow + 1e-4 * slow.std() * noise(16_000, 1)).astype(np.float64)
    slow = ((slow - slow.mean()) / slow.std()).astype(np.float32)
    exact = copy.deepcopy(plain.model).double()
    with torch.inference_mode():
        oracle = transformers.UniSpeechForCTC(transformers.UniSpeechConfig(**exact.config.to_diff_dict()))
        oracle.load_state_dict(exact.state_dict(), strict=False)
        expected = oracle.double().eval()(torch.from_numpy(slow)[None].double()).logits.log_softmax(-1)[0]
    for one in (plain, engine):
        np.testing.assert_allclose(one.log_probs([slow])[0], expected, rtol=0, atol=1e-4)


SIGNALLED = """
import gc, os, signal, sys
from unispeech.engines.choice import open_engine
engines = [open_engine(sys.argv[1], None, engine="openvino") for _ in range(2)]
while engines:
    engines.pop(0)
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGCHLD)
print("lives")
"""


def test_signals_are_heard_when_engines_are_gone(tmp_path):
    # A training behind a transcription crashed when its workers ended.
    folder = save_recogniser(tmp_path / "model")
    code = [sys.executable, "-c", SIGNALLED, str(folder)]
    result = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "heard\nlives\n")
