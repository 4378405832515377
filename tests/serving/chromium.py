"""Headless Chromium, driven by its own protocol over a WebSocket."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-port=0",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
KEYS = {
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Delete": 46,
}
CONTROL = 2


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser."""

    def __init__(self, socket) -> None:
        self.socket, self.count, self.session, self.events = socket, 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def run(self, code):
        """The value of a JavaScript expression, awaited."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", expression=code, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, code, seconds=60.0):
        """Wait until an expression is true, and give it."""
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"{code} was waited for in vain; status: {self.text('#status')}"
            time.sleep(0.1)
        return value

    def go(self, address):
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.querySelector('#model') !== null")

    def text(self, selector):
        return self.run(f"document.querySelector({selector!r})?.textContent")

    def look(self, *, width, height=900, dark=False):
        """Take a width and a colour scheme."""
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.run("new Promise((done) => setTimeout(done, 400))")

    def shoot(self, path: Path):
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(image["data"]))

    def middle(self, selector):
        """The middle of an element in the window."""
        return self.run(
            f"(() => {{ const e = document.querySelector({selector!r});"
            "e.scrollIntoView({block: 'center'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )

    def click(self, selector, dx=0.0):
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x + dx, y)

    def mouse(self, kind, x, y):
        pressed = 0 if kind == "mouseReleased" else 1
        options = {"button": "left", "buttons": pressed, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **options)

    def drag(self, selector, dx):
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y)
        for part in (0.5, 1.0):
            self.mouse("mouseMoved", x + part * dx, y)
        self.mouse("mouseReleased", x + dx, y)

    def press(self, key, modifiers=0):
        """Press a key; a letter or a name of `KEYS`."""
        code = KEYS.get(key, ord(key[0].upper()))
        options = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        has_text = not modifiers and (key not in KEYS or key in {"Enter", " "})
        text = {"text": "\r" if key == "Enter" else key} if has_text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def give_file(self, selector, path: Path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def requests(self):
        """Addresses of all that the page asked for."""
        sent = [
            event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"
        ]
        return [params["request"]["url"] for params in sent]

    def complaints(self):
        """What the browser found wrong."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"])
        return found


@contextmanager
def browser(folder: Path, microphone: Path):
    """A page of a browser that keeps its files in a folder and hears a recording.

    Yields:
        The page.
    """
    flags = [*FLAGS, f"--user-data-dir={folder}", f"--use-file-for-fake-audio-capture={microphone}"]
    process = subprocess.Popen(
        [find_chromium(), *flags], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        address = None
        for line in process.stderr:
            if "DevTools listening on " in line:
                address = line.split("DevTools listening on ")[1].strip()
                break
        with connect(address, max_size=None, open_timeout=30) as socket:
            yield Page(socket)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
