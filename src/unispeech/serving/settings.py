"""What a server is told when it starts."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from unispeech.data.g2p import Method
from unispeech.engines.engine import EngineName, Precision
from unispeech.frames import Seconds


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model is served and how it runs.

    Raises:
        ValueError: If a setting is out of its range.
    """

    model: str
    """A model directory or a Hub id: a recogniser (CTC) or a classifier."""
    name: str | None = None
    """What clients call it; None: the last part of `model`."""
    device: str = "auto"
    """Where it runs, such as "cpu" or "cuda:1"; "auto" takes a GPU if there is one."""
    precision: Precision = "auto"
    """As in `Transcriber`."""
    engine: EngineName = "torch"
    """As in `Transcriber`; classifiers run in torch whatever it is."""
    cuda_graphs: bool = False
    """As in `Transcriber`; classifiers run without."""
    batch_seconds: Seconds = 60.0
    """Most seconds of audio that run at once, padding included; 0 runs every request alone."""
    window_seconds: Seconds = 20.0
    """Most seconds that the network hears at once of one recording, at least 1; they overlap by 1 s on either
    side, by a quarter where that is less."""
    g2p: Method | None = None
    """How alignment says a text where the model writes phones; None: it takes phones only."""
    language: str | None = None
    """Language of such texts; None where `g2p` is a lexicon or None."""
    lexicon: Path | None = None
    """The lexicon, where `g2p` is "lexicon"."""

    def __post_init__(self) -> None:
        if not self.batch_seconds >= 0:
            raise ValueError(f"`batch_seconds` must not be negative, but is {self.batch_seconds}.")

    @property
    def overlap_seconds(self) -> Seconds:
        """Seconds at either side of a window that are heard but not kept."""
        return min(1.0, self.window_seconds / 4)

    @property
    def shown_name(self) -> str:
        """What clients call the model."""
        return self.name or Path(self.model.rstrip("/")).name or "unispeech"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken from clients.

    Raises:
        ValueError: If a limit is not positive.
    """

    max_upload_mb: float = 100.0
    """Largest body of a request, in millions of bytes."""
    max_seconds: Seconds = 1800.0
    """Longest recording, and longest stream."""
    max_requests: int = 64
    """Requests that are received, waiting and running at once."""
    max_streams: int = 8
    """WebSocket streams at once."""
    upload_seconds: Seconds = 300.0
    """Time in which the body of a request must have come."""
    idle_seconds: Seconds = 30.0
    """Time after which a stream that sends nothing is closed."""
    decode_seconds: Seconds = 60.0
    """Time in which an upload must have been decoded."""
    stop_seconds: Seconds = 30.0
    """Time that requests have to finish when the server is told to stop."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, but is {value}.")

    @property
    def max_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return round(self.max_upload_mb * 1e6)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """A model, limits, and who may ask.

    Raises:
        ValueError: If `port` is out of its range, `api_key` cannot be sent, or an origin is none.
    """

    model: ModelSettings
    """What is served."""
    limits: Limits = field(default_factory=Limits)
    """How much is taken from clients."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    api_key: str | None = field(default=None, repr=False)
    """Key that clients must send; None asks for none."""
    allowed_origins: tuple[str, ...] = ()
    """Other web sites whose pages may ask, such as "https://example.org"."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"`port` must lie in [0, 65535], but is {self.port}.")
        for origin in self.allowed_origins:
            if not re.fullmatch(r"\*|https?://[^/\s]+", origin):
                raise ValueError(
                    "`allow_origin` must be * or such as https://example.org, without a path, but is "
                    f"{origin!r}."
                )
        # Headers hold no other characters on which all clients agree.
        if self.api_key is not None and not re.fullmatch("[!-~]+", self.api_key):
            raise ValueError("`api_key` must be ASCII letters, digits and signs, but is empty or has others.")
