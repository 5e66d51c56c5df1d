"""The observer behind `--web`, which shows runs on a live page."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...errors import StyleTransferError
from ...registry import OBSERVERS
from ...settings import check_not_empty, flag_name, option, validate_fields
from ..observer import Command, Observer, Progress, Result, RunInfo

if TYPE_CHECKING:
    from ...engine.iterate import Iterate

READ_INTERVAL = 0.5
"""The least seconds between two readings of the losses for viewers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebOptions:
    """The command-line options of the live page."""

    web: bool = option(False, "show the run on a live page in a browser", flag=True)
    host: str = option("127.0.0.1", "serve the live page at this address; by default only to this machine",
        metavar="ADDRESS", check=check_not_empty)  # fmt: skip
    port: int = option(8080, "serve the live page at this port; 0 picks a free one", kind=int, minimum=0, maximum=65535)
    browser: str | None = option(None, "open the live page in the default browser, or in the one named", optional_word=True,
        metavar="NAME")  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)


@OBSERVERS.register("web")
class WebObserver(Observer):
    """Shows runs on a live page, whose buttons pause, resume and finish them.

    One server, which starts with the first picture of the command, shows all of them. Raises `SettingsError` for an invalid token
    in the environment.
    """

    Options = WebOptions

    def __init__(self, options: WebOptions) -> None:
        from .server import Server  # here, as the parser imports this module and aiohttp takes a quarter of a second

        self.server = Server(options.host, options.port)
        self._browser = options.browser
        self._run: RunInfo | None = None
        self._last: Iterate | None = None
        self._read = 0.0

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return an observer on rank 0 of a command with `--web`."""
        options = command.options(WebOptions)
        return cls(options) if options.web and not command.rank else None

    def begin(self, run: RunInfo) -> None:
        """Show a run instead of the previous one. Raises `SettingsError` if the server cannot use its address."""
        serving, self._run, self._last = self._run is not None, run, None
        self.server.state.begin(
            control=run.control, history=run.history, stages=tuple(run.stages), about=_description(run),
            content=self.server.pictures.of_content(run.content, run.stages[-1].size),
        )  # fmt: skip
        self.server.pictures.wanted = False
        if not serving:
            self._serve(run.report)

    def _serve(self, report: Callable[[str], None]) -> None:
        self.server.start()
        guard = self.server.guard
        report(f"watch it at {guard.address}")
        if guard.exposed:
            report(
                "style_transfer: note: the live page can be reached from other machines; everyone who has its address can watch "
                "and steer the run"
            )
        if self._browser is not None:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.get(self._browser or None).open(guard.address)

    def step(self, progress: Progress) -> None:
        """Show a step, with its picture if one is due, and pause the run if a viewer pressed that button."""
        assert self._run is not None
        state, pictures, viewers = self.server.state, self.server.pictures, self.server.routes.streams
        iterate, run = progress.iterate, self._run
        run.history.add(iterate)
        self._answer_about_scale(iterate)
        asked = state.now.asked
        if iterate.step == 1 or iterate.ends_scale or asked or pictures.wanted or (viewers and pictures.due):
            pictures.take(iterate.index, progress.picture, run.finish)
        due = viewers and time.monotonic() - self._read >= READ_INTERVAL
        if asked or due or self.server.routes.curves_wanted:
            run.history.read()
            self._read, self.server.routes.curves_wanted = time.monotonic(), False
        done = {**state.now.done, iterate.index: iterate.step}
        state.change(phase="running", done=done, step=_facts(progress, run.history.steps))
        self._last = iterate
        if "pause" in state.now.asked and not iterate.ends_run:
            run.control.pause()
            state.answer("pause", f"Paused after {state.now.place}.")

    def _answer_about_scale(self, iterate: Iterate) -> None:
        """Answer the button that finishes a scale, once the run is at the next scale."""
        state, last = self.server.state, self._last
        if last is None or last.index == iterate.index or "finish-scale" not in state.now.asked:
            return
        if last.ends_scale:
            state.answer("finish-scale", f"The scale had just ended, after {state.now.place}.")
        else:
            state.answer("finish-scale", f"Finished this scale after {state.now.place}. The next one has begun.")

    def end(self, result: Result) -> Mapping[str, Path]:
        """Show the last picture, and let viewers download the result."""
        assert self._run is not None
        state, progress = self.server.state, result.progress
        if progress is not None:
            self.server.pictures.take(progress.iterate.index, progress.picture, self._run.finish)
        self._run.history.read(wait=True)
        for button in state.now.asked - {"pause"}:
            scale = " this scale" if button == "finish-scale" else ""
            state.answer(button, f"Finished{scale} after {state.now.place}; the picture is saved.")
        step = {**state.now.step, "seconds_left": 0.0, "scale_seconds_left": 0.0} if state.now.step else {}
        phase = "stopped" if result.status == "stopped" else "finished"
        state.change(phase=phase, result=result.path, step=step, asked=frozenset())
        return {}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Show why the run ended."""
        self.server.state.change(phase="failed", error=str(error))

    def stay(self, stopped: Callable[[], bool]) -> None:
        """Return when no viewer is left, when a viewer has ended the program, or when `stopped()` is true."""
        routes = self.server.routes
        if self._run is not None and routes.watched and not routes.close_requested and not stopped():
            self._run.report("the live page stays until its viewers close it; Ctrl-C ends it now")
        while routes.watched and not routes.close_requested and not stopped():
            time.sleep(0.1)

    def close(self) -> None:
        """Stop the server after viewers have got the last picture."""
        self.server.stop()


def _description(run: RunInfo) -> dict[str, Any]:
    """Return the facts that the page shows about a run and that do not change."""
    recipe = run.recipe
    return {
        "program": recipe["program"],
        "content": Path(run.task.content).name,
        "styles": [Path(path).name for path in run.task.styles],
        "output": run.task.output.name,
        "network": recipe["network"]["name"],
        "devices": recipe["devices"],
        "precision": recipe["precision"],
        "settings": {flag_name(name): value for name, value in recipe["settings"].items()},
    }


def _facts(progress: Progress, total: int) -> dict[str, Any]:
    """Return the facts that the page shows about a step, the `total`th of the run. Times are without pauses."""
    iterate = progress.iterate
    return {
        "index": iterate.index,
        "width": iterate.size[1],
        "height": iterate.size[0],
        "step": iterate.step,
        "steps": iterate.steps,
        "total": total,
        "fraction": iterate.done / sum(stage.work for stage in iterate.stages),
        "seconds": iterate.seconds - progress.paused,
        "seconds_left": progress.seconds_left,
        "scale_seconds_left": progress.scale_seconds_left,
        "seconds_per_iteration": progress.seconds_per_step,
        "memory": iterate.memory,
        "tiles": list(iterate.tiles),
    }
