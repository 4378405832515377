"""`unispeech serve`: transcription over HTTP, and a page for the browser."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def serve(
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"])],
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: Path | None = None,
    allow_origin: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16", "int8"] = "auto",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "torch",
    cuda_graphs: Annotated[bool, Parameter(negative="")] = False,
    batch_seconds: float = 60.0,
    window_seconds: float = 20.0,
    g2p: Literal["epitran", "espeak"] | None = None,
    language: str | None = None,
    lexicon: Path | None = None,
    max_upload_mb: float = 100.0,
    max_seconds: float = 1800.0,
    max_requests: int = 64,
    max_streams: int = 8,
) -> int:
    """Serve a model over HTTP, with a page for the browser at the same address.

    POST /v1/audio/transcriptions takes a recording as OpenAI's clients send it, /v1/align a recording and
    what is said in it, /v1/classify a recording where the model is a classifier; the WebSocket /v1/stream
    takes sound while it is made. /health, /metrics (Prometheus) and /openapi.json tell about the server.
    Requests that wait together run as one batch. docs/server.md has it all.

    Only this machine can connect unless --host says otherwise. SIGTERM and Ctrl-C let requests finish.

    Examples:
      unispeech serve -m examples/checkpoint
      curl -F file=@talk.wav localhost:8000/v1/audio/transcriptions
      unispeech serve -m examples/checkpoint --host 0.0.0.0 --api-key key.txt
      unispeech serve -m examples/checkpoint --g2p espeak --language en

    Args:
        model: A model directory or a Hub id, of a recogniser or a classifier.
        name: What clients call the model; by default the last part of model.
        host: Address to listen at; 0.0.0.0 for all that this machine has.
        port: Port to listen at; 0 takes a free one.
        api_key: File with the key that clients must send; without it they need none.
        allow_origin: Other web sites whose pages may ask, such as https://example.org.
        device: Where to run, such as cpu or cuda:1; auto takes a GPU if there is one.
        precision: auto is bf16 on GPUs that have it and float32 elsewhere.
        engine: What runs the network, as for transcribe; classifiers run in torch.
        cuda_graphs: On a GPU, replay the network's kernels for recordings of up to 10 s that run alone.
        batch_seconds: Most seconds of audio that run at once; 0 runs every request alone.
        window_seconds: Most seconds that the network hears at once of one recording.
        g2p: How texts to align are spoken, for a model that writes phones.
        language: Language of these texts.
        lexicon: How their words are spoken, instead of g2p: a word and its phones per line.
        max_upload_mb: Largest upload, in millions of bytes.
        max_seconds: Longest recording.
        max_requests: Requests that are received, waiting and running at once.
        max_streams: WebSocket streams at once.
    """
    try:
        from unispeech.serving.running import serve as run
        from unispeech.serving.settings import Limits, ModelSettings, ServerSettings
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`unispeech serve` needs {error.name}; install it with: pip install 'unispeech[serve]'."
        ) from error
    if lexicon is not None and g2p is not None:
        raise ValueError("`lexicon` and `g2p` must not be given together; which of the two shall it be?")
    settings = ServerSettings(
        model=ModelSettings(
            model=model,
            name=name,
            device=device,
            precision=precision,
            engine=engine,
            cuda_graphs=cuda_graphs,
            batch_seconds=batch_seconds,
            window_seconds=window_seconds,
            g2p="lexicon" if lexicon is not None else g2p,
            language=language,
            lexicon=lexicon,
        ),
        limits=Limits(
            max_upload_mb=max_upload_mb,
            max_seconds=max_seconds,
            max_requests=max_requests,
            max_streams=max_streams,
        ),
        host=host,
        port=port,
        api_key=None if api_key is None else api_key.read_text(encoding="utf-8").strip(),
        allowed_origins=allow_origin,
    )
    shown = settings.model.shown_name
    run(settings, on_ready=lambda at: print(f"unispeech: {shown} is served at {at}", file=sys.stderr))
    return 0
