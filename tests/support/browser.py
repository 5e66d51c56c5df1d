"""A browser for the tests: headless Chromium, controlled over WebDriver (W3C) with the standard library only."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver passes elements (W3C WebDriver, section 12)."""


def chromium() -> tuple[str, str]:
    """Return the paths of Chromium and its driver; skip the test if they are not installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    return found[0], found[1]


class Browser:
    """One headless window. `mobile` emulates a phone with a touch screen."""

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1280, 900), mobile: bool = False, dark: bool = False) -> None:
        binary, driver = chromium()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
            f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}",
        ]  # fmt: skip
        if dark:
            arguments.append("--force-dark-mode")
        about: dict[str, Any] = {"binary": binary, "args": arguments}
        if mobile:
            metrics = {"width": size[0], "height": size[1], "pixelRatio": 2.0, "touch": True}
            about["mobileEmulation"] = {"deviceMetrics": metrics}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": about, "goog:loggingPrefs": logs}
        try:
            for _ in range(100):
                try:
                    answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
                    break
                except urllib.error.URLError:
                    time.sleep(0.1)
            else:
                raise RuntimeError("the driver does not answer")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.session = f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self._call("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an async JavaScript function and return its result."""
        script = f"return (async function () {{ {script}\n }}).apply(null, arguments)"
        return self._call("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, name: str) -> str:
        """Return the text of the element with an id."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def click(self, name: str) -> None:
        """Click the element with an id, which must be visible."""
        found = self._call("POST", f"{self.session}/element", {"using": "css selector", "value": f"#{name}"})
        self._call("POST", f"{self.session}/element/{found[ELEMENT]}/click", {})

    def keys(self, name: str, text: str) -> None:
        """Type into the element with an id."""
        found = self._call("POST", f"{self.session}/element", {"using": "css selector", "value": f"#{name}"})
        self._call("POST", f"{self.session}/element/{found[ELEMENT]}/value", {"text": text})

    def pointer(self, *steps: dict[str, Any], kind: str = "mouse", name: str = "pointer") -> None:
        """Perform a sequence of W3C pointer actions."""
        self.pointers({name: list(steps)}, kind)

    def pointers(self, sequences: dict[str, list[dict[str, Any]]], kind: str = "mouse") -> None:
        """Perform sequences of pointer actions in parallel, one for each finger."""
        actions = [
            {"type": "pointer", "id": name, "parameters": {"pointerType": kind}, "actions": steps}
            for name, steps in sequences.items()
        ]
        self._call("POST", f"{self.session}/actions", {"actions": actions})

    def wheel(self, x: int, y: int, delta: int) -> None:
        """Turn the mouse wheel over a point of the window."""
        step = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": delta, "duration": 0, "origin": "viewport"}
        self._call("POST", f"{self.session}/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [step]}]})

    def devtools(self, command: str, **about: object) -> Any:
        """Send a command of Chromium's DevTools protocol."""
        return self._call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": about})

    def until(self, what: str, holds: Callable[[], object], seconds: float = 30) -> Any:
        """Return `holds()` once it is true; fail after `seconds`, naming `what` was expected."""
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s for: {what}; the page shows: {self.text('phase')}, {self.text('answer')}")
            time.sleep(0.1)
        return found

    def complaints(self) -> list[str]:
        """Return the warnings and errors on the console since the last call.

        These tests read the canvas often, and the remark about that is left out.
        """
        entries = self._call("POST", f"{self.session}/se/log", {"type": "browser"})
        messages = [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]
        return [message for message in messages if "willReadFrequently" not in message]

    def requested(self) -> set[str]:
        """Return the addresses requested since the last call."""
        entries = self._call("POST", f"{self.session}/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}

    def screenshot(self, path: Path) -> None:
        """Save a screenshot of the window as PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", f"{self.session}/screenshot")))

    def kill(self) -> None:
        """Kill the browser."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()

    def close(self) -> None:
        """End browser and driver."""
        try:
            self._call("DELETE", self.session)
        except (OSError, RuntimeError):
            self.kill()
        self.process.terminate()
        self.process.wait(timeout=10)
