"""The live page in a headless Chromium: what a viewer sees and does. Skipped where Chromium is not installed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.browser import Browser
from support.live_page import Page
from support.tiny import tiny_weights, use_tiny_vgg19

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.compute.distributed import Request
from style_transfer.geometry.scales import Stage
from style_transfer.observers.observer import RunInfo
from style_transfer.observers.web import WebObserver, guard, routes
from style_transfer.observers.web.server import Server

AXE = "AXE_CORE"
"""The environment variable with the path of axe.min.js, which `npm install axe-core` installs."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


class Running:
    """A command in a thread, with a tiny network, and its live page. A `paused` run waits after its first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *more: str, paused: bool = False) -> None:
        self.pages: list[tuple[WebObserver, RunInfo]] = []
        self.code: int | None = None
        begin = WebObserver.begin

        def begun(page: WebObserver, info: RunInfo) -> None:
            if paused:
                info.control.pause()
            begin(page, info)
            self.pages.append((page, info))

        monkeypatch.setattr(WebObserver, "begin", begun)
        argv = ["c.png", "s.png", "--weights", "w.safetensors", "--web", "--port", "0", "-ms", "64", "-s", "91", "-o", "o.png"]
        self.thread = threading.Thread(target=self._run, args=([*argv, *more],))
        self.thread.start()
        while not self.pages:
            assert self.thread.is_alive(), self.code
            time.sleep(0.01)
        page, info = self.pages[0]
        self.server, self.control = page.server, info.control

    def _run(self, argv: list[str]) -> None:
        self.code = cli.main(argv)

    def end(self) -> None:
        """Finish the run and wait for its end."""
        self.server.routes.close_requested = True
        self.control.request(Request.FINISH)
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a run on small pictures; by default it continues until somebody finishes it."""
    monkeypatch.chdir(tmp_path)
    use_tiny_vgg19(monkeypatch)
    across = np.linspace(0, 255, 160, dtype=np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(across, (120, 160)), *[np.full((120, 160), 90, np.uint8)] * 2], 2)).save("c.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 60, 3), dtype=np.uint8)).save("s.png")
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    running: list[Running] = []

    def starter(*more: str, paused: bool = False) -> Running:
        running.append(Running(monkeypatch, *(more or ("-ii", "1000000", "-i", "1000000")), paused=paused))
        return running[-1]

    yield starter
    for one in running:
        one.end()


def picture(browser: Browser) -> str:
    """Return the pixels of the canvas as text."""
    return str(browser.run("return document.getElementById('canvas').toDataURL()"))


def colour(browser: Browser, x: float, y: float) -> list[int]:
    """Return the colour of the canvas at a position in fractions of its width and height."""
    script = """const c = document.getElementById('canvas'), pen = c.getContext('2d');
        return [...pen.getImageData(c.width * arguments[0], c.height * arguments[1], 1, 1).data]"""
    return list(browser.run(script, x, y))


def middle(browser: Browser) -> tuple[int, int]:
    """Return the centre of the picture in the window."""
    x, y = browser.run("const b = view.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]")
    return int(x), int(y)


def shown(browser: Browser, server: Server, seconds: float = 60) -> None:
    """Open a page and wait for the picture."""
    browser.requested(), browser.complaints()
    browser.open(server.guard.address)
    browser.until("the first picture", lambda: browser.run("return document.getElementById('waiting').hidden"), seconds)


def test_a_run_from_the_first_picture_to_the_file(browser: Browser, run: Callable[..., Running], tmp_path: Path) -> None:
    running = run()
    shown(browser, running.server)
    assert browser.run("return location.href") == f"http://127.0.0.1:{running.server.guard.port}/"
    before, rows = picture(browser), browser.run("return rows.length")
    browser.until("a picture that changes", lambda: picture(browser) != before)
    browser.until("curves that grow", lambda: browser.run("return rows.length") > rows + 5)
    assert browser.run("return document.querySelectorAll('#chart path').length") == len(browser.run("return names")) + 1
    assert browser.run("return document.getElementById('ladder').children.length") == 2
    assert "--content-weight" in browser.run("return document.getElementById('settings').textContent")
    assert browser.text("left") != "\u2013" and browser.text("memory").endswith(("MiB", "GiB"))

    browser.click("pause")
    browser.until("the pause", lambda: browser.text("answer").startswith("Paused after iteration"))
    step = browser.until("the step of the pause", lambda: browser.text("phase") == "paused" and browser.text("step"))
    time.sleep(1.5)
    assert browser.text("step") == step and browser.text("pause") == "Resume"
    browser.click("pause")
    browser.until("the run to continue", lambda: browser.text("step") != step and browser.text("phase") == "running")

    browser.click("finish-scale")
    browser.until("the next scale", lambda: browser.text("size") == "91 \u00d7 68")
    assert browser.text("answer").startswith("Finished this scale")
    options = browser.run("return [...document.getElementById('compare').options].map(option => option.value)")
    assert options == ["", "content", "0"]
    browser.click("finish")
    browser.until("the end", lambda: browser.text("phase") == "finished")
    assert "is saved" in browser.text("answer")
    assert images.load(tmp_path / "o.png").pixels.shape == (68, 91, 3)
    fetch = "const a = await fetch(document.getElementById(arguments[0]).href); return [a.status, a.headers.get('Content-Type')]"
    for name, kind in (("result", "image/png"), ("png", "image/png"), ("jpeg", "image/jpeg")):
        assert browser.run(fetch, name) == [200, kind]
    assert running.thread.is_alive()
    browser.click("close")
    running.thread.join(30)
    assert running.code == 0
    browser.until("the end of the program", lambda: browser.text("phase") == "the program has ended")
    assert browser.complaints() == []
    requests = {url for url in browser.requested() if not url.startswith(("chrome://", "data:"))}
    assert requests and {url.split("/")[2] for url in requests} == {f"127.0.0.1:{running.server.guard.port}"}


def test_the_slider_compares_and_the_view_moves(browser: Browser) -> None:
    blue_content = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 600, 800)
    page = Page().open(content=blue_content, stages=(Stage(scale=800, size=(600, 800), style_sizes=(), steps=10),))
    try:
        left = np.full((600, 800, 3), (1.0, 0.0, 0.0), np.float32)
        left[:, 400:] = (0.0, 1.0, 0.0)
        page.show(1, picture=lambda: left)
        shown(browser, page.server)
        red, green, blue = (lambda c: c[0] > 200 > 60 > c[1], lambda c: c[1] > 200 > 60 > c[0], lambda c: c[2] > 200 > 60 > c[0])
        browser.until("red and green", lambda: red(colour(browser, 0.4, 0.5)) and green(colour(browser, 0.6, 0.5)))
        browser.run("const s = document.getElementById('compare'); s.value = 'content'; s.dispatchEvent(new Event('change'))")
        browser.until("blue left of the slider", lambda: blue(colour(browser, 0.4, 0.5)) and green(colour(browser, 0.6, 0.5)))
        x, y = middle(browser)
        width = browser.run("return view.clientWidth")
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}

        def to(x: float, y: float, duration: int = 100) -> dict[str, Any]:
            return {"type": "pointerMove", "x": int(x), "y": int(y), "duration": duration, "origin": "viewport"}

        browser.pointer(to(x, y, 0), down, to(x + 0.2 * width, y), up)
        browser.until("blue further right", lambda: blue(colour(browser, 0.6, 0.5)))
        assert int(browser.run("return document.getElementById('split').value")) == pytest.approx(70, abs=1)
        browser.keys("view", ",,,,,,,,,,,,,,")
        browser.until("the slider at the left", lambda: browser.run("return document.getElementById('split').value") == "0")
        browser.until("red again", lambda: red(colour(browser, 0.4, 0.5)))
        browser.wheel(x, y, -600)
        browser.until("the zoom", lambda: browser.run("return zoomNow() / fit()") > 2)
        browser.pointer(to(x + 100, y, 0), down, to(x + 350, y), up)
        browser.until("red in the middle", lambda: red(colour(browser, 0.52, 0.5)))
        browser.keys("view", "0")
        browser.until("the whole picture", lambda: browser.run("return at.zoom") == 0)
        browser.keys("view", "1")
        browser.until("real pixels", lambda: browser.text("zoom") == "100 %")
        browser.run("zoomTo(0)")
        fingers = {
            "one": [to(x - 20, y, 0), down, to(x - 120, y, 300), up],
            "two": [to(x + 20, y, 0), down, to(x + 120, y, 300), up],
        }
        browser.pointers(fingers, "touch")
        browser.until("the pinch", lambda: browser.run("return zoomNow() / fit()") > 2)
        assert browser.complaints() == []
    finally:
        page.close()


def test_few_tiles_of_a_huge_picture_are_sent(browser: Browser) -> None:
    size = (8000, 12500)  # 100 megapixels
    page = Page().open(stages=(Stage(scale=12500, size=size, style_sizes=(), steps=10),))
    try:
        page.show(1, picture=lambda: np.broadcast_to(np.uint8(150), (*size, 3)))
        shown(browser, page.server)
        browser.run("zoomTo(real())")
        browser.until(
            "tiles of real pixels",
            lambda: browser.run("return [...tiles.values()].filter(t => t.level === 0 && t.image).length") >= 4,
        )
        sent = [url for url in browser.requested() if "/tile/" in url]
        assert any("/tile/0/0/" in url for url in sent) and len(sent) < 40
    finally:
        page.close()


def test_the_page_survives_a_restart_of_the_server(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.TOKEN, "0123456789abcdef")
    first = Page().open()
    first.show(1)
    shown(browser, first.server)
    first.close()
    browser.until("the lost connection to be noticed", lambda: browser.run("return offline"))
    assert browser.run("return document.getElementById('pause').disabled")
    second = Page(port=first.port).open()
    try:
        assert second.port == first.port
        second.show(1, 1)
        second.show(7, 1)
        browser.until("the new run", lambda: browser.text("step") == "7 of 10" and browser.text("phase") == "running")
        assert browser.text("size") == "18 \u00d7 16"
        browser.until("its picture", lambda: colour(browser, 0.5, 0.5)[0] in range(60, 68))
    finally:
        second.close()


def test_a_tab_that_slept_catches_up(browser: Browser) -> None:
    page = Page().open()
    try:
        page.show(1)
        shown(browser, page.server)
        browser.devtools("Page.setWebLifecycleState", state="frozen")
        page.show(6)
        time.sleep(1)
        browser.devtools("Page.setWebLifecycleState", state="active")
        browser.until("the new step", lambda: browser.text("step") == "6 of 10")
        browser.devtools("Network.enable")
        browser.devtools("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        browser.run("lastHeard = -1e9")  # as if the machine had slept
        browser.until("the lost connection to be noticed", lambda: browser.run("return offline"))
        browser.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        page.show(8)
        browser.until("the newest step", lambda: browser.text("step") == "8 of 10" and browser.text("phase") == "running")
    finally:
        page.close()
        browser.complaints()


def test_a_run_whose_browser_is_killed_ends_normally(
    run: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "AWAY", 2.0)
    viewer = Browser(tmp_path / "profile")
    try:
        running = run("-ii", "40", "-i", "20", paused=True)
        shown(viewer, running.server)
        viewer.kill()
        running.control.resume()
        running.thread.join(120)
        assert running.code == 0 and not running.server.routes.close_requested
    finally:
        viewer.close()


def accessible(browser: Browser) -> list[str]:
    """Return the violations that axe-core reports, once colour transitions are over."""
    moving = "return document.getAnimations().some(a => a instanceof CSSTransition && a.playState === 'running')"
    browser.until("the end of colour transitions", lambda: not browser.run(moving))
    browser.run(Path(os.environ[AXE]).read_text() + "\nwindow.axe = axe;")
    found = browser.run("return (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found]


@pytest.mark.parametrize("mobile", [False, True])
def test_the_page_is_accessible_and_fits_the_window(mobile: bool, run: Callable[..., Running], tmp_path: Path) -> None:
    size = (390, 844) if mobile else (1280, 900)
    browser = Browser(tmp_path / "profile", size=size, mobile=mobile)
    try:
        running = run()
        shown(browser, running.server)
        browser.until("curves", lambda: browser.run("return rows.length") > 3)
        browser.run("const s = document.getElementById('compare'); s.value = 'content'; s.dispatchEvent(new Event('change'))")
        browser.run("document.querySelector('details').open = true")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        if AXE not in os.environ:
            pytest.skip(f"{AXE} does not name axe-core's axe.min.js (npm install axe-core)")
        for theme in ("light", "dark"):
            browser.run("theme = arguments[0]; applyTheme()", theme)
            assert accessible(browser) == []
    finally:
        browser.close()
