"""What the live page costs a run: seconds per iteration without a page and with three viewers, taken in turns.

    python benchmarks/viewers.py [--scale 256] [--block 8] [--rounds 12] [--viewers 3]

One run is made. Blocks of iterations without viewers and with them alternate, so that what else the machine does falls on both. A
viewer is a process that reads the events and fetches every new frame's tiles as the page does; drawing is not part of it, since a
viewer's screen is usually another machine's. The first iteration of each block is left out. Writes a file of benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import statistics
import time
import urllib.parse
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from record import Record, rounded

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine.control import Control
from style_transfer.engine.loop import stylize
from style_transfer.files import Task
from style_transfer.geometry.scales import Stage
from style_transfer.networks.loading import load_networks
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.history import History
from style_transfer.observers.observer import Progress, RunInfo
from style_transfer.observers.web import WebObserver, WebOptions
from style_transfer.pictures.tensors import to_pixels
from style_transfer.settings import Settings


def view(address: str, watching: Event, over: Event, frames: multiprocessing.Queue[int]) -> None:
    """Watch the page while `watching` is set: read events, and fetch the overview of each new frame."""
    where = urllib.parse.urlsplit(address)
    host, headers = where.netloc, {"Authorization": f"Bearer {urllib.parse.parse_qs(where.query)['token'][0]}"}
    fetched = 0
    while not over.is_set():
        if not watching.wait(0.05):
            continue
        events = http.client.HTTPConnection(host, timeout=5)
        pictures = http.client.HTTPConnection(host, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):  # the page closes when the run is over
            events.request("GET", "/events", headers=headers)
            answer = events.getresponse()
            frame = 0
            while watching.is_set():
                line = answer.readline()
                if not line.startswith(b"data: {"):
                    continue
                state = json.loads(line[6:])
                if state["frame"] != frame and "index" in state:
                    frame = state["frame"]
                    level = max(0, (max(state["width"], state["height"]) - 1) // 512).bit_length()
                    pictures.request("GET", f"/tile/{state['index']}/{level}/0/0", headers=headers)
                    pictures.getresponse().read()
                    fetched += 1
            answer.close()
        events.close()
        pictures.close()
    frames.put(fetched)


def open_page(content: torch.Tensor, steps: int) -> WebObserver:
    """Return a live page for a run of one scale, of the size of the content."""
    size = content.shape[2], content.shape[3]
    recipe = {"program": "viewers.py", "network": {"name": "compact"}, "devices": [], "precision": "", "settings": {}}
    page = WebObserver(WebOptions(web=True, port=0))
    page.begin(
        RunInfo(
            task=Task("content", ("style",), Path("result.png")), content=content, start=None,
            stages=(Stage(max(size), size, (), steps),), finish=lambda pixels: pixels, recipe=recipe, identity="", inputs=(),
            max_pixels=1 << 30, checkpoint=None, resumed=None, seconds=0.0, history=History(), control=Control(), group=LOCAL,
            report=lambda text: None,
        )
    )  # fmt: skip
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=256, help="long side in pixels")
    parser.add_argument("--block", type=int, default=8, help="iterations in a block")
    parser.add_argument("--rounds", type=int, default=12, help="blocks of each kind")
    parser.add_argument("--viewers", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    about = parser.parse_args()
    random = torch.Generator().manual_seed(0)
    content, style = (torch.rand(1, 3, about.scale * 3 // 4, about.scale, generator=random) for _ in range(2))
    steps = about.block * about.rounds * 2 + 1
    scale = str(about.scale)
    settings = Settings(
        network="compact", min_scale=about.scale, end_scale=scale, initial_iterations=steps, devices=(about.device,)
    ).resolve()
    page = open_page(content, steps)
    address = page.server.guard.address
    context = multiprocessing.get_context("spawn")
    watching, over, frames = context.Event(), context.Event(), context.Queue()
    viewers = [context.Process(target=view, args=(address, watching, over, frames)) for _ in range(about.viewers)]
    for viewer in viewers:
        viewer.start()
    networks = load_networks(settings, [torch.device(about.device)])
    times: dict[bool, list[float]] = {False: [], True: []}
    clock: TimeLeft | None = None
    last = time.perf_counter()
    for iterate in stylize(content, [style], settings, networks=networks):
        clock = clock or TimeLeft(iterate.stages)
        left = clock.update(iterate.index, iterate.step, iterate.seconds)
        picture = lambda: to_pixels(iterate.image())  # noqa: B023, E731 - called at once or not at all
        page.step(Progress(iterate, left, clock.scale_left, clock.pace, 0.0, picture))
        now = time.perf_counter()
        place = (iterate.step - 1) % about.block
        if place and iterate.step > 1:
            times[watching.is_set()].append(now - last)
        if place == about.block - 1:
            if watching.is_set():
                watching.clear()
            else:
                watching.set()
            time.sleep(1.5)  # streams open and close
        last = time.perf_counter()
    over.set()
    watching.clear()
    page.close()
    for viewer in viewers:
        viewer.join(10)
    alone, watched = (statistics.median(times[kind]) for kind in (False, True))
    record = Record("viewers", f"built-in network, blocks of {about.block} iterations in turns", "the same run without viewers")
    record.add(
        "viewers",
        {"alone_seconds": rounded(times[False]), "watched_seconds": rounded(times[True])},
        viewers=about.viewers,
        scale=about.scale,
        iterations=len(times[True]),
        frames=page.server.state.now.frame,
        alone_seconds=rounded(alone),
        alone_quartiles=rounded(statistics.quantiles(times[False])[::2]),
        watched_seconds=rounded(watched),
        watched_quartiles=rounded(statistics.quantiles(times[True])[::2]),
        slower_percent=rounded(100 * (watched / alone - 1), 2),
    )
    record.write()


if __name__ == "__main__":
    main()
