"""A server under load: latency and audio per second against the number of clients, with and without batches.

    python benchmarks/serving.py [--model examples/checkpoint] [--clients 1 2 4 8 16] [--requests 40]
                                 [--memory-requests 1000] [--seconds 4] [--memory-seconds 1.5]

The server is `unispeech serve` in a process of its own; clients are threads of this one, each sending its
next request when the one before is answered. Recordings are the examples, cut or repeated to about
`--seconds`, in turn. Prints a table of latencies (median, 90th, 99th percentile) and audio seconds per
second, then the server's resident memory before, during and after `--memory-requests` requests of eight
clients, with recordings of about `--memory-seconds`. `--clients` without numbers leaves the first table out,
`--memory-requests 0` the second. At the defaults some 3,300 s of audio are heard: about three minutes at 20
seconds of audio a second.
"""

import argparse
import io
import itertools
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import urllib3

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextmanager
def server(model: str, batch_seconds: float) -> Iterator[tuple[str, int]]:
    """Run a server.

    Yields:
        Its address and its process id.
    """
    command = [sys.executable, "-m", "unispeech", "serve", "-m", model, "--port", "0"]
    command += ["--batch-seconds", str(batch_seconds), "--max-requests", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = process.stderr.readline().split()[-1]
        # Its log has to go somewhere, or it would wait for a reader.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def recordings(seconds: float) -> list[bytes]:
    """Wav files of about a length: three quarters of it to five."""
    found = []
    for index, path in enumerate(sorted((EXAMPLES / "recordings").glob("*.flac"))):
        samples, rate = soundfile.read(path)
        length = round(seconds * (0.75 + 0.1 * index) * rate)
        file = io.BytesIO()
        soundfile.write(file, np.resize(samples, length), rate, format="WAV")
        found.append(file.getvalue())
    return found


class Client:
    """Asks a server and notes how long each answer took."""

    def __init__(self, address: str, audio: list[bytes]) -> None:
        self.url = f"{address}/v1/audio/transcriptions"
        self.pool = urllib3.PoolManager(maxsize=64)
        self.audio = itertools.cycle(audio)
        self.latencies: list[float] = []
        self.lock = threading.Lock()

    def ask(self, _: int) -> float:
        """Send one request.

        Returns:
            Seconds of its audio.
        """
        with self.lock:
            content = next(self.audio)
        start = time.perf_counter()
        answer = self.pool.request("POST", self.url, fields={"file": ("talk.wav", content)})
        assert answer.status == 200, answer.data
        self.latencies.append(time.perf_counter() - start)
        return float(answer.json()["usage"]["seconds"])


def load(address: str, audio: list[bytes], num_clients: int, num_requests: int) -> dict[str, float]:
    """Ask by several clients at once."""
    client = Client(address, audio)
    for number in range(2):
        client.ask(number)
    client.latencies.clear()
    start = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        seconds = sum(pool.map(client.ask, range(num_requests)))
    elapsed = time.perf_counter() - start
    cuts = statistics.quantiles(client.latencies, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "speed": seconds / elapsed}


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000


def print_latencies(model: str, clients: list[int], num_requests: int, audio: list[bytes]) -> None:
    """Print latency and speed for each number of clients."""
    print("| batches | clients | median s | 90 % s | 99 % s | audio s / s |")
    print("|---|---|---|---|---|---|")
    for name, batch_seconds in (("without", 0.0), ("60 s", 60.0)):
        with server(model, batch_seconds) as (address, _):
            for num_clients in clients:
                row = load(address, audio, num_clients, num_requests)
                times = " | ".join(f"{row[key]:.3f}" for key in ("p50", "p90", "p99"))
                print(f"| {name} | {num_clients} | {times} | {row['speed']:.1f} |", flush=True)


def print_memory(model: str, num_requests: int, audio: list[bytes]) -> None:
    """Print the server's memory at every tenth of the requests."""
    with server(model, 60.0) as (address, pid):
        load(address, audio, 8, 50)
        print("\n| requests | resident MB |\n|---|---|")
        print(f"| 50 | {resident(pid):.0f} |", flush=True)
        tenth = max(num_requests // 10, 1)
        for part in range(1, 11):
            load(address, audio, 8, tenth)
            print(f"| {50 + part * tenth} | {resident(pid):.0f} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(EXAMPLES / "checkpoint"))
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--memory-requests", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--memory-seconds", type=float, default=1.5)
    options = parser.parse_args()
    if options.clients:
        print_latencies(options.model, options.clients, options.requests, recordings(options.seconds))
    if options.memory_requests:
        print_memory(options.model, options.memory_requests, recordings(options.memory_seconds))


if __name__ == "__main__":
    main()
