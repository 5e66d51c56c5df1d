"""The live page in a real headless Chromium: what its user sees and does. Skipped, with a message, where there is none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from support.browser import Browser
from support.live_page import Page, iterate
from support.tiny import TINY, tiny_weights

from style_transfer import cli, networks
from style_transfer.geometry.scales import Stage
from style_transfer.observers import web
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.web import WebObserver
from style_transfer.pictures import images

AXE = "AXE_CORE"
"""Variable of the environment with the path of axe.min.js; `npm install axe-core` brings it."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


class Running:
    """A run of the command line in a thread, with a tiny network, and its page's address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
        self.pages: list[WebObserver] = []
        self.code: int | None = None
        start = WebObserver.start

        def started(page: WebObserver) -> str:
            address = start(page)
            self.pages.append(page)
            return address

        monkeypatch.setattr(WebObserver, "start", started)
        argv = [
            "c.png",
            "s.png",
            "--weights",
            "w.safetensors",
            "--web",
            "--port",
            "0",
            "-ms",
            "64",
            "-s",
            "91",
            "-o",
            "o.png",
            *more,
        ]
        self.thread = threading.Thread(target=self._run, args=(argv,))
        self.thread.start()
        while not self.pages:
            assert self.thread.is_alive(), self.code
            time.sleep(0.01)
        self.page = self.pages[0]

    def _run(self, argv: list[str]) -> None:
        self.code = cli.main(argv)

    def end(self) -> int | None:
        """Wait for the end and return the exit code."""
        self.page.finishing = self.page.closing = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.code


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Return a starter of runs on small pictures that go on until somebody finishes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    across = np.linspace(0, 255, 160, dtype=np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(across, (120, 160)), *[np.full((120, 160), 90, np.uint8)] * 2], 2)).save("c.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 60, 3), dtype=np.uint8)).save("s.png")
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    running: list[Running] = []

    def starter(*more: str) -> Running:
        running.append(Running(monkeypatch, *(more or ("-ii", "1000000", "-i", "1000000"))))
        return running[-1]

    yield starter
    for one in running:
        one.end()


def picture(browser: Browser) -> str:
    """Return the canvas's pixels as text."""
    return str(browser.run("return document.getElementById('canvas').toDataURL()"))


def colour(browser: Browser, x: float, y: float) -> list[int]:
    """Return the canvas's colour at a place given in parts of its width and height."""
    script = """const c = document.getElementById('canvas'), pen = c.getContext('2d');
        return [...pen.getImageData(c.width * arguments[0], c.height * arguments[1], 1, 1).data]"""
    return list(browser.run(script, x, y))


def middle(browser: Browser) -> tuple[int, int]:
    """Return the middle of the picture in the window."""
    x, y = browser.run("const b = view.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]")
    return int(x), int(y)


def shown(browser: Browser, page: WebObserver, seconds: float = 60) -> None:
    """Open a page and wait for the picture."""
    browser.requested(), browser.complaints()
    browser.open(page.address)
    browser.until("the first picture", lambda: browser.run("return document.getElementById('waiting').hidden"), seconds)


def test_a_run_from_the_first_picture_to_the_file(browser: Browser, run: Callable[..., Running], tmp_path: Path) -> None:
    running = run()
    shown(browser, running.page)
    assert browser.run("return location.href") == f"http://127.0.0.1:{running.page.port}/"
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
    assert browser.text("step") == step and browser.text("pause") == "Go on"
    browser.click("pause")
    browser.until("the run to go on", lambda: browser.text("step") != step and browser.text("phase") == "painting")

    browser.click("finish-scale")
    browser.until("the next scale", lambda: browser.text("size") == "91 \u00d7 68")
    assert browser.text("answer").startswith("Finished this scale")
    assert [option for option in browser.run("return [...document.getElementById('compare').options].map(o => o.value)")] == [
        "",
        "content",
        "0",
    ]
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
    browser.until("the goodbye", lambda: browser.text("phase") == "the program has ended")
    assert browser.complaints() == []
    requests = {url for url in browser.requested() if not url.startswith(("chrome://", "data:"))}
    assert requests and {url.split("/")[2] for url in requests} == {f"127.0.0.1:{running.page.port}"}


def test_the_slider_compares_and_the_view_moves(browser: Browser) -> None:
    page = Page(port=0, content=np.full((600, 800, 3), (0.0, 0.0, 1.0), np.float32))
    page.start()
    try:
        now = iterate(1)
        left = np.full((600, 800, 3), (1.0, 0.0, 0.0), np.float32)
        left[:, 400:] = (0.0, 1.0, 0.0)
        now.stages = (Stage(scale=800, size=(600, 800), style_sizes=(), steps=10),)
        now.size = (600, 800)
        page.update(now, TimeLeft(now.stages), 1.0, lambda: left)
        shown(browser, page)
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


def test_of_a_huge_picture_a_few_tiles_are_sent(browser: Browser) -> None:
    page = Page(port=0)
    page.start()
    try:
        now = iterate(1)
        size = (8000, 12500)  # 100 megapixels
        now.stages, now.size = (Stage(scale=12500, size=size, style_sizes=(), steps=10),), size
        page.update(now, TimeLeft(now.stages), 1.0, lambda: np.broadcast_to(np.uint8(150), (*size, 3)))
        shown(browser, page)
        browser.run("zoomTo(real())")
        tile = "/tile/0/0/"
        browser.until(
            "tiles of real pixels",
            lambda: browser.run("return [...tiles.values()].filter(t => t.level === 0 && t.image).length") >= 4,
        )
        sent = [url for url in browser.requested() if "/tile/" in url]
        assert any(tile in url for url in sent) and len(sent) < 40
    finally:
        page.close()


def test_the_page_survives_the_servers_restart(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(web.TOKEN, "0123456789abcdef")
    first = Page(port=0)
    first.start()
    first.tell(1)
    shown(browser, first)
    first.close()
    browser.until("the loss to be noticed", lambda: browser.run("return offline"))
    assert browser.run("return document.getElementById('pause').disabled")
    second = Page(port=first.port)
    second.start()
    try:
        assert second.port == first.port
        second.tell(1, 1)
        second.tell(7, 1)
        browser.until("the new run", lambda: browser.text("step") == "7 of 10" and browser.text("phase") == "painting")
        assert browser.text("size") == "18 \u00d7 16"
        browser.until("its picture", lambda: colour(browser, 0.5, 0.5)[0] in range(60, 68))
    finally:
        second.close()


def test_a_tab_that_slept_catches_up(browser: Browser) -> None:
    page = Page(port=0)
    page.start()
    try:
        page.tell(1)
        shown(browser, page)
        browser.devtools("Page.setWebLifecycleState", state="frozen")
        page.tell(6)
        time.sleep(1)
        browser.devtools("Page.setWebLifecycleState", state="active")
        browser.until("the new step", lambda: browser.text("step") == "6 of 10")
        browser.devtools("Network.enable")
        browser.devtools("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        browser.run("heard = -1e9")  # as if the machine had slept
        browser.until("the loss to be noticed", lambda: browser.run("return offline"))
        browser.devtools("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
        page.tell(8)
        browser.until("the newest step", lambda: browser.text("step") == "8 of 10" and browser.text("phase") == "painting")
    finally:
        page.close()
        browser.complaints()


def test_a_run_whose_browser_is_killed_ends_as_it_should(
    run: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "AWAY", 2.0)
    begin = WebObserver.begin

    def held(page: WebObserver, *args: Any) -> None:
        begin(page, *args)
        page.paused = True  # until the browser is there, however soon the run would be over

    monkeypatch.setattr(WebObserver, "begin", held)
    viewer = Browser(tmp_path / "profile")
    try:
        running = run("-ii", "40", "-i", "20")
        shown(viewer, running.page)
        viewer.kill()
        running.page.paused = False
        running.thread.join(120)
        assert running.code == 0 and not running.page.finishing
    finally:
        viewer.close()


def accessible(browser: Browser) -> list[str]:
    """Return axe-core's complaints, once colours have come to rest."""
    moving = "return document.getAnimations().some(a => a instanceof CSSTransition && a.playState === 'running')"
    browser.until("colours at rest", lambda: not browser.run(moving))
    browser.run(Path(os.environ[AXE]).read_text() + "\nwindow.axe = axe;")
    found = browser.run("return (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found]


@pytest.mark.parametrize("mobile", [False, True])
def test_it_is_accessible_and_fits(mobile: bool, run: Callable[..., Running], tmp_path: Path) -> None:
    size = (390, 844) if mobile else (1280, 900)
    browser = Browser(tmp_path / "profile", size=size, mobile=mobile)
    try:
        running = run()
        shown(browser, running.page)
        browser.until("curves", lambda: browser.run("return rows.length") > 3)
        browser.run("const s = document.getElementById('compare'); s.value = 'content'; s.dispatchEvent(new Event('change'))")
        browser.run("document.querySelector('details').open = true")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        if AXE not in os.environ:
            pytest.skip(f"{AXE} does not name axe-core's axe.min.js (npm install axe-core)")
        for theme in ("light", "dark"):
            browser.run("theme = arguments[0]; dress()", theme)
            assert accessible(browser) == []
    finally:
        browser.close()
