"""A headless Chromium, driven over its DevTools pipe with nothing but the standard library."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ANSWER_S, START_S = 30.0, 60.0
NULL = b"\0"


class Browser:
    """One page of a browser, which is ended by `close`.

    Attributes:
        problems: what its console called an error.
    """

    def __init__(self, profile: Path) -> None:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip(f"needs a browser: one of {', '.join(NAMES)}")
        self.problems: list[str] = []
        self._number, self._rest, self._answers = 0, b"", {}
        (theirs_in, self._to), (self._from, theirs_out) = os.pipe(), os.pipe()
        # Out of the way of 3 and 4, where the browser looks for them.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (theirs_in, theirs_out)]
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run")
        options += (f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank")
        quiet = os.open(os.devnull, os.O_RDWR)
        duplicates = ((ends[0], 3), (ends[1], 4), (quiet, 1), (quiet, 2))
        actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in duplicates]
        self._process = os.posix_spawn(
            program, [program, *options], os.environ, file_actions=actions, setpgroup=0
        )
        for end in (theirs_in, theirs_out, quiet, *ends):
            os.close(end)
        self._session = ""
        (target,) = [
            each["targetId"]
            for each in self.call("Target.getTargets", START_S)["targetInfos"]
            if each["type"] == "page"
        ]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, limit_s: float = ANSWER_S, /, **parameters: Any) -> Any:
        """Return the answer to a command of the DevTools protocol."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + NULL)
        ends = time.monotonic() + limit_s
        while self._number not in self._answers:
            self._read(ends, method)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _read(self, ends: float, method: str) -> None:
        ready, _, _ = select.select([self._from], [], [], max(0.0, ends - time.monotonic()))
        assert ready, f"{method}: the browser did not answer"
        read = os.read(self._from, 1 << 20)
        assert read, f"{method}: the browser is gone"
        *whole, self._rest = (self._rest + read).split(NULL)
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._hear(message["method"], message["params"])

    def _hear(self, event: str, told: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.problems.append(str(details.get("exception", details).get("description", details)))
        if event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(told["entry"]["text"])
        if event == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith(("file:", "data:", "blob:", "about:")):
                self.problems.append(f"asked for {address}")

    def open(self, page: Path, width: int = 1300, height: int = 900) -> None:
        """Show a file and wait until its scripts ran."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete'", START_S)

    def evaluate(self, script: str) -> Any:
        """Return what an expression is in the page, as plain data."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def wait(self, script: str, limit_s: float = ANSWER_S) -> None:
        """Wait until an expression is true in the page."""
        ends = time.monotonic() + limit_s
        while not self.evaluate(script):
            assert time.monotonic() < ends, f"never so: {script}"
            time.sleep(0.05)

    def click(self, script: str) -> None:
        """Press the mouse on the middle of the element that an expression names."""
        place = self.evaluate(
            f"(() => {{ const e = {script}; e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.drag(place, place)

    def drag(self, start: list[float], end: list[float]) -> None:
        """Press the mouse at a place of the window and let go at another."""
        for kind, (x, y) in (("Moved", start), ("Pressed", start), ("Moved", end)):
            self._mouse(kind, x, y)
        self._mouse("Released", *end)

    def _mouse(self, kind: str, x: float, y: float) -> None:
        button = {} if kind == "Moved" else {"button": "left", "clickCount": 1}
        pressed = {"buttons": 1} if kind == "Pressed" else {}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **button, **pressed)

    def screenshot(self) -> bytes:
        """Return the window as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End the browser and all that it started."""
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        for end in (self._to, self._from):
            os.close(end)
