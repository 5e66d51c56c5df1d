"""What the live page costs a run: seconds per iteration without a page and with three viewers, taken in turns.

    python benchmarks/viewers.py [--scale 256] [--block 8] [--rounds 12] [--viewers 3]

One run is made. Blocks of iterations without viewers and with them alternate, so that what else the machine does falls on both. A
viewer is a process that reads the events and fetches every new frame's tiles as the page does; drawing is not part of it, since a
viewer's screen is usually another machine's. The first iteration of each block is left out.
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

import torch

from style_transfer.api import to_pixels
from style_transfer.engine.loop import stylize
from style_transfer.networks import load
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.web import WebObserver
from style_transfer.settings.settings import Settings


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
    )
    page = WebObserver(port=0, content=to_pixels(content))
    address = page.start()
    context = multiprocessing.get_context("spawn")
    watching, over, frames = context.Event(), context.Event(), context.Queue()
    viewers = [context.Process(target=view, args=(address, watching, over, frames)) for _ in range(about.viewers)]
    for viewer in viewers:
        viewer.start()
    networks = load(settings, [torch.device(about.device)])
    times: dict[bool, list[float]] = {False: [], True: []}
    clock: TimeLeft | None = None
    last = time.perf_counter()
    for iterate in stylize(content, [style], settings, networks=networks):
        clock = clock or TimeLeft(iterate.stages)
        left = clock.update(iterate.index, iterate.step, iterate.seconds)
        page.update(iterate, clock, left, lambda: to_pixels(iterate.image()))  # noqa: B023 - called at once or not at all
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
    print(f"{about.viewers} viewers, {about.scale} px, {len(times[True])} iterations of each kind, {page._frame} frames")
    print(f"alone   {alone:.4f} s per iteration (median), quartiles {statistics.quantiles(times[False])}")
    print(f"watched {watched:.4f} s per iteration (median), quartiles {statistics.quantiles(times[True])}")
    print(f"slower by {100 * (watched / alone - 1):.2f} %")


if __name__ == "__main__":
    main()
