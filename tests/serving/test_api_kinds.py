"""Alignment, classification, languages, and what the server tells of itself."""

import io
import json

import jsonschema
import numpy as np
import pytest
import soundfile
from server_rig import Server, refusal, settings, wav

from tiny_recognisers import LETTERS, babble, save_classifier, save_recogniser
from unispeech.decoding.inventory import LANGUAGES
from unispeech.formats.json import schema
from unispeech.pipelines.aligner import Aligner
from unispeech.pipelines.classifier import Classifier
from unispeech.pipelines.transcriber import Transcriber
from unispeech.serving.served import Served
from unispeech.serving.settings import ModelSettings
from unispeech.serving.worker import AbandonedError


@pytest.fixture(scope="module")
def transcriber(model_dir):
    return Transcriber(model_dir, device="cpu")


def samples(seconds, seed=0):
    """What the server hears of `wav(seconds, seed)`."""
    return soundfile.read(io.BytesIO(wav(seconds, seed)), dtype="float32")[0]


def test_align_gives_the_times_of_a_text(server, transcriber):
    text = " ".join(phone.phone for phone in transcriber.transcribe(samples(0.8), 16_000).phones)
    answer = server.send("/v1/align", wav(0.8), text=text, phones="true")
    document = answer.json()
    jsonschema.validate(document, schema())
    assert (document["audio"], document["text"]) == ("talk.wav", text)
    expected = Aligner(transcriber).align(samples(0.8), text, is_phones=True, sample_rate=16_000)
    assert [phone["start"] for phone in document["phones"]] == [round(p.start, 4) for p in expected.phones]
    tsv = server.send("/v1/align", wav(0.8), text=text, phones="true", response_format="tsv").text
    assert tsv.startswith("tier\tstart\tend\tlabel\tscore\nphones\t")


def test_an_alignment_gives_way_at_every_window(server):
    gone = []

    def give_way():
        gone.append(None)
        if len(gone) == 3:
            raise AbandonedError

    waveform = np.concatenate([babble(30.0, seed) for seed in range(3)])
    task = server.service.served.align(waveform, "a ŋ", is_phones=True, wildcard=False)
    with pytest.raises(AbandonedError):
        task.run(give_way)


def test_bodies_that_are_no_forms_are_told_so(server):
    for kind in ("application/json", "text/plain"):
        answer = server.client.post("/v1/align", content=b"{}", headers={"content-type": kind})
        assert refusal(answer) == (400, f"the body must be a form (multipart/form-data), but is {kind}.")
    assert refusal(server.client.post("/v1/align", data={"text": "a"}))[0] == 422


def test_a_name_may_hold_a_slash(model_dir):
    with Server(settings(model_dir, name="a/b")) as served:
        assert served.client.get("/v1/models/a/b").json()["id"] == "a/b"


def test_texts_that_cannot_be_aligned_are_refused(server):
    too_much = server.send("/v1/align", text="a " * 100, phones="true")
    status, message = refusal(too_much)
    assert status == 422
    assert "must have at least 199 frames (3.98 s) for 100 symbols with 99 repeats, but has 24" in message
    unknown = refusal(server.send("/v1/align", text="a zz", phones="true"))
    assert unknown[0] == 422
    assert "must be spelled in the model's symbols" in unknown[1]
    assert server.send("/v1/align", text="a zz", phones="true", wildcard="true").status_code == 200
    assert refusal(server.send("/v1/align")) == (422, "`text` must be given, but is missing.")


def test_align_takes_words_where_a_lexicon_says_them(tmp_path, model_dir):
    lexicon = tmp_path / "words.dict"
    lexicon.write_text("ring ɹ ŋ\n", encoding="utf-8")
    with Server(settings(model_dir, g2p="lexicon", lexicon=lexicon)) as server:
        document = server.send("/v1/align", text="Ring, ring!").json()
        assert [word["word"] for word in document["words"]] == ["Ring", "ring"]
        status, message = refusal(server.send("/v1/align", text="song"))
        assert (status, str(tmp_path) in message) == (422, False)
        assert "'song'" in message


def test_letters_are_aligned_as_they_are(tmp_path):
    with Server(settings(save_recogniser(tmp_path / "letters", LETTERS))) as server:
        document = server.send("/v1/align", text="one").json()
    assert [phone["phone"] for phone in document["phones"]] == ["o", "n", "e"]


def test_languages_that_the_model_knows_choose_its_symbols(tmp_path):
    model = save_recogniser(tmp_path / "tongues")
    known = {"version": 1, "inventories": {"aa": ["a", "ɹ"], "bb": ["ŋ"]}}
    (model / LANGUAGES).write_text(json.dumps(known), encoding="utf-8")
    with Server(settings(model)) as server:
        assert server.client.get("/v1/models").json()["data"][0]["languages"] == ["aa", "bb"]
        free = set(server.transcribe(wav(2.0)).json()["text"].split())
        bound = server.transcribe(wav(2.0), language="aa", response_format="verbose_json").json()
        assert refusal(server.transcribe(language="aaa")) == (
            422,
            "`language` must be one of aa, bb, but is 'aaa'; did you mean 'aa'?",
        )
    assert not free <= {"a", "ɹ"}
    assert set(bound["text"].split()) <= {"a", "ɹ"}
    assert bound["language"] == "aa"


def test_classifiers_give_labels(tmp_path):
    model = save_classifier(tmp_path / "labels", ["yes", "no", "stop"])
    with Server(settings(model, window_seconds=1.0)) as server:
        answer = server.send("/v1/classify", wav(0.8), top_k="2").json()
        expected = Classifier(model, device="cpu").classify(samples(0.8), 16_000, top_k=2)
        assert [found["label"] for found in answer["labels"]] == [found.label for found in expected.labels]
        assert [found["score"] for found in answer["labels"]] == pytest.approx(
            [found.score for found in expected.labels], abs=1e-4
        )
        windows = server.send("/v1/classify", wav(2.5), top_k="1").json()["windows"]
        assert len(windows) > 1
        assert [len(window["labels"]) for window in windows] == [1] * len(windows)
        assert refusal(server.transcribe()) == (
            404,
            "labels is a classifier; send recordings to /v1/classify.",
        )
        assert server.client.get("/v1/models").json()["data"][0]["symbols"] == ["yes", "no", "stop"]
        status, message = refusal(server.send("/v1/classify", top_k="0"))
        assert (status, message.startswith("`top_k` is wrong: input should be greater")) == (422, True)


def test_recognisers_do_not_classify(server):
    expected = "tiny is a recogniser; send recordings to /v1/audio/transcriptions."
    assert refusal(server.send("/v1/classify")) == (404, expected)


def test_the_model_is_described(server):
    [model] = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["kind"]) == ("tiny", "model", "phones")
    assert model["symbols"] == ["a", "t͡ʃ", "ɹ", "ŋ", "iː"]
    assert server.client.get("/v1/models/tiny").json() == model
    status, message = refusal(server.client.get("/v1/models/whisper-1"))
    assert (status, message) == (404, "`name` must be tiny, the one model that is served here.")


def test_unknown_paths_and_methods_are_refused_in_the_same_form(server):
    status, message = refusal(server.client.get("/v1/nothing"))
    assert (status, message) == (404, "there is nothing at nothing; /openapi.json lists what there is.")
    assert refusal(server.client.get("/v1/align"))[0] == 405


def test_health_and_metrics(server):
    assert server.client.get("/health").json() == {"status": "ready"}
    server.transcribe(wav(0.5))
    page = server.client.get("/metrics").text
    assert 'unispeech_requests_total{route="/v1/audio/transcriptions",status="200"}' in page
    assert "unispeech_audio_seconds_total" in page
    assert "unispeech_waiting 0.0" in page


def test_the_openapi_page_lists_what_there_is(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/audio/transcriptions",
        "/v1/align",
        "/v1/classify",
        "/v1/models",
        "/v1/models/{name}",
        "/health",
        "/metrics",
    }
    form = server.client.get("/openapi.json").json()["paths"]["/v1/align"]["post"]["requestBody"]
    assert list(form["content"]) == ["multipart/form-data"]


def test_int8_is_refused_for_classifiers(tmp_path):
    model = save_classifier(tmp_path / "labels", ["yes", "no"])
    with pytest.raises(ValueError, match="`precision` must be one of auto, float32, bf16, but is 'int8'"):
        Served(ModelSettings(model=str(model), device="cpu", precision="int8"))
