"""`unispeech serve` from its start to its end."""

import signal
import socket
import subprocess
import sys
import threading

import httpx2 as httpx
import pytest
from server_rig import busy, wait_until, wav

from unispeech.cli import main
from unispeech.serving import running
from unispeech.serving.settings import ModelSettings, ServerSettings


def files(seconds=0.5):
    return {"file": ("talk.wav", wav(seconds))}


def test_a_server_starts_serves_and_ends_on_a_signal(model_dir):
    command = [sys.executable, "-m", "unispeech", "serve", "-m", str(model_dir), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        assert line.startswith("unispeech: tiny is served at http://127.0.0.1:")
        address = line.split()[-1]
        assert httpx.get(f"{address}/health").json() == {"status": "ready"}
        answer = httpx.post(f"{address}/v1/audio/transcriptions", files=files(), timeout=60)
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == ""
    assert [line.split(" ", 2)[2].split(" ")[:3] for line in err.splitlines()] == [
        ["GET", "/health", "200"],
        ["POST", "/v1/audio/transcriptions", "200"],
    ]


def test_what_was_begun_is_finished_when_the_server_stops(model_dir, monkeypatch):
    services, servers, address, outcome = [], [], [], {}
    monkeypatch.setattr(
        running, "Service", lambda settings: services.append(SERVICE(settings)) or services[0]
    )
    monkeypatch.setattr(
        running, "_Server", lambda config, service: servers.append(SERVER(config, service)) or servers[0]
    )
    # Signals are for the main thread alone.
    monkeypatch.setattr(SERVER, "capture_signals", lambda self: NOTHING())
    settings = ServerSettings(model=ModelSettings(model=str(model_dir), device="cpu"), port=0)
    serving = threading.Thread(target=running.serve, args=[settings], kwargs={"on_ready": address.append})
    serving.start()
    wait_until(lambda: address, 60)

    def ask():
        url = f"{address[0]}/v1/audio/transcriptions"
        outcome["status"] = httpx.post(url, files=files(), timeout=30).status_code

    with busy(services[0].worker) as release:
        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: services[0].worker.num_waiting == 1)
        servers[0].handle_exit(signal.SIGTERM, None)
        assert services[0].state == "stopping"
        release()
        asking.join(30)
    serving.join(30)
    assert outcome == {"status": 200}
    assert not serving.is_alive()
    servers[0].handle_exit(signal.SIGINT, None)
    assert servers[0].force_exit


SERVICE, SERVER = running.Service, running._Server


class NOTHING:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as left:
        main(["serve", *map(str, arguments)])
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_what_cannot_be_served_is_one_line(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "-m", tmp_path / "empty", "--port", 0)
    assert "must hold a model, but has no config.json" in line


def test_a_port_that_is_taken_is_one_line(capsys, model_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(capsys, "-m", model_dir, "--port", port)
    assert f"`host` and `port` must be free to listen at, but 127.0.0.1:{port} is not (" in line
    assert line.endswith("; choose others.")


def test_settings_that_contradict_one_another_are_one_line(capsys, model_dir, tmp_path):
    line = refused(capsys, "-m", model_dir, "--g2p", "epitran", "--lexicon", tmp_path / "words")
    assert "`lexicon` and `g2p` must not be given together" in line
    assert "`max_requests` must be positive, but is 0" in refused(
        capsys, "-m", model_dir, "--max-requests", 0
    )
    for origin in ("foo", "https://a.example/page", "ftp://a.example"):
        line = refused(capsys, "-m", model_dir, "--allow-origin", origin)
        assert f"such as https://example.org, without a path, but is '{origin}'." in line
    line = refused(capsys, "-m", model_dir, "--device", "cpu", "--cuda-graphs")
    assert "`device` must be a CUDA GPU along with `cuda_graphs`, but is cpu" in line
    (tmp_path / "key").write_text("two words\n")
    assert "`api_key` must be ASCII" in refused(capsys, "-m", model_dir, "--api-key", tmp_path / "key")


def test_a_missing_extra_is_named(capsys, model_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "unispeech.serving.running", None)
    line = refused(capsys, "-m", model_dir)
    assert "install it with: pip install 'unispeech[serve]'" in line
