"""Painting one picture: the loop over the engine's iterates, and all that happens between two of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..api import to_pixels
from ..compute.distributed import Request
from ..errors import NumericError, OutputError, StyleTransferError
from ..evaluation import memory
from ..files.atomic import is_there, shown
from ..observers.console import JSONLines, TimeLeft, print_out

if TYPE_CHECKING:
    from ..compute.distributed import Group
    from ..engine.checkpoint import Keeper, State
    from ..engine.iterate import Iterate
    from ..geometry.scales import Size
    from ..observers.animation import Animation
    from ..observers.console import Observer
    from ..observers.preview import Preview
    from ..observers.report import Report
    from ..observers.web import WebObserver
    from ..pictures.color import Pixels
    from ..settings.settings import Settings
    from .interrupt import Interrupt
    from .options import Options
    from .output import Output

Iterates = Generator["Iterate", "bool | None", None]


class Painting:
    """Runs the engine for one picture: feeds the bar and the page, keeps checkpoints, writes the picture, stops when asked.

    In a group of processes all do the same, and rank 0 alone writes and shows; what decides the course, such as the wish to
    stop, is the same on all.
    """

    def __init__(
        self, output: Output, settings: Settings, options: Options, group: Group, interrupt: Interrupt, observer: Observer,
        keeper: Keeper | None,
    ) -> None:  # fmt: skip
        self.output, self.settings, self.options = output, settings, options
        self.group, self.interrupt, self.observer, self.keeper = group, interrupt, observer, keeper
        self.page: WebObserver | None = None
        self.preview: Preview | None = None
        self.animation: Animation | None = None
        self.report: Report | None = None
        self.skip = False
        """Whether the engine is to go on with the next scale."""
        self.gathered: Pixels | None = None
        """The picture that was saved last, in a group, whose parts lie apart."""

    def __call__(
        self, iterates: Iterates, picture_of: Callable[[State], torch.Tensor], watch: Callable[[], WebObserver | None],
        began: float, *, last: bool,
    ) -> int:  # fmt: skip
        """Paint and return the exit code.

        `picture_of` makes the picture of a state, `watch` opens the live page, `began` are the seconds of the run so far, and
        after the `last` picture of a command the page stays while somebody watches. Raises `StyleTransferError`.
        """
        self.group.request(Request(0))
        try:
            self.page = watch()
            with self.interrupt.watching():
                iterate, finished = self._loop(iterates, began)
                code = self._end(iterate, finished=finished)
                if self.page is not None and last and not self.interrupt.asked and self.page.watched:
                    self.observer.say("the live page stays until it is closed; Ctrl-C ends it now")
                    self.page.stay(lambda: self.interrupt.asked)
                return code
        except StyleTransferError as error:
            if self.keeper is not None:
                if isinstance(error, NumericError) and not self.group.rank and (state := self.keeper.last()) is not None:
                    with contextlib.suppress(OutputError):
                        self.save_state(state, picture_of(state), finished=False)
                self.keeper.close()
            if self.page is not None:
                self.page.fail(str(error))
            self._save_failed(error)
            raise
        finally:
            if self.animation is not None:
                self.animation.close()

    def _loop(self, iterates: Iterates, began: float) -> tuple[Iterate, bool]:
        """Paint to the end or until somebody ends it; return the last iterate, and whether a viewer was content with it."""
        clock: TimeLeft | None = None
        iterate: Iterate | None = None
        held = 0.0
        halvings = 0
        for iterate in self._driven(iterates):
            clock = clock or TimeLeft(iterate.stages, began)
            left = clock.update(iterate.index, iterate.step, iterate.seconds - held)
            self._tell_tiles(iterate)
            self.observer.update(iterate, left)
            if self.page is not None:
                self.page.update(iterate, clock, left, functools.partial(self._page_pixels, iterate), held)
                held += self.page.hold(lambda: self.interrupt.asked)
            self._show(iterate)
            if iterate.halvings > halvings and not self.group.rank:
                halvings = iterate.halvings
                self.observer.say(
                    "style_transfer: note: loss or picture were not finite; going on from "
                    f"{iterate.w}x{iterate.h}, iteration {iterate.step}, with 1/{2**halvings} of the step size"
                )
            due = self.keeper is not None and not self.group.rank and self.keeper.due()
            keep = Request.SAVE in self.group.agreed if self.group.size > 1 else due
            finish, skip = (False, False) if self.page is None else (self.page.finishing, self.page.skipping)
            asked = {Request.STOP: self.interrupt.asked, Request.SAVE: due, Request.FINISH_SCALE: skip, Request.FINISH: finish}
            self.group.request(functools.reduce(operator.or_, (r for r, wanted in asked.items() if wanted), Request(0)))
            agreed = self.group.agreed
            if agreed & (Request.STOP | Request.FINISH) or iterate.ends_run:
                return iterate, Request.FINISH in agreed and Request.STOP not in agreed
            self._skip_if_asked(iterate)
            if self.skip and iterate.index == len(iterate.stages) - 1:
                return iterate, True
            ends_scale, every = iterate.ends_scale or self.skip, self.options.save_every
            if ends_scale or (every and iterate.step % every == 0):
                self._write_if_possible(iterate)
            if ends_scale or keep:
                self._keep(iterate)
        if iterate is None:
            raise KeyboardInterrupt
        return iterate, False

    def _driven(self, iterates: Iterates) -> Iterator[Iterate]:
        """Yield the engine's iterates; whenever `skip` is set it is told to go on with the next scale."""
        with contextlib.suppress(StopIteration):
            yield next(iterates)
            while True:
                yield iterates.send(self.skip)

    def _skip_if_asked(self, iterate: Iterate) -> None:
        """Set `skip` if a viewer wants the scale to end here; the same on all ranks."""
        self.skip = Request.FINISH_SCALE in self.group.agreed and not iterate.ends_scale
        if self.skip:
            self.group.request(self.group.requested & ~Request.FINISH_SCALE)
            self.group.agreed &= ~Request.FINISH_SCALE
            self.output.skipped(iterate.index, iterate.step)
        if self.page is not None and self.skip:
            self.page.skipped(last=iterate.index == len(iterate.stages) - 1)
        elif self.page is not None and iterate.ends_scale:
            self.page.missed()

    def _tell_tiles(self, iterate: Iterate) -> None:
        if iterate.step > 1 or sum(iterate.tiles) == 1 or self.options.quiet or self.group.rank:
            return
        height, width = iterate.size
        share = f" by each of {self.group.size} processes" if self.group.size > 1 else ""
        self.observer.say(f"{width}x{height} is worked on in {' + '.join(map(str, iterate.tiles))} tiles{share}")

    def _show(self, iterate: Iterate) -> None:
        """Let those watch who make something of the run."""
        for onlooker in (self.preview, self.animation, self.report):
            if onlooker is not None:
                onlooker.update(iterate)

    def _page_pixels(self, iterate: Iterate) -> Pixels:
        """Return what the live page shows: the picture so far, or, in a group, whose parts lie apart, the one saved last.

        Its colours are finished where it is encoded, on the page's side, so that the run does not wait.
        """
        if self.group.size == 1:
            return to_pixels(iterate.image())
        return np.zeros((*iterate.size, 3), np.float32) if self.gathered is None else self.gathered

    # the end

    def _end(self, iterate: Iterate, *, finished: bool) -> int:
        """Keep and write the last picture, say where it is, and return the exit code."""
        if not iterate.ends_run:
            self._keep(iterate)
        self._write_last(iterate)
        if self.page is not None:
            pixels = functools.partial(self._page_pixels, iterate)
            self.page.end(iterate, pixels, self.output.path, finished=iterate.ends_run or finished)
        if self.keeper is not None:
            self.keeper.close()
            self._tell_problem(self.keeper)
        code = 0 if iterate.ends_run or finished else self.interrupt.exit_code
        if self.preview is not None and not iterate.ends_run:
            self.preview.show(iterate)
        failure = self._save_more(iterate, code)
        self.observer.close()
        if self.group.rank:
            return code
        self._tell_done(iterate.size, interrupted=not iterate.ends_run)
        if not iterate.ends_run:
            height, width = iterate.size
            self.observer.say(
                f"style_transfer: {'stopped' if code else 'finished'} at {width}x{height}, iteration {iterate.step} of "
                f"{iterate.steps}; the picture so far is in {shown(self.output.path)}"
                + ("; --resume goes on" if self.keeper is not None and self.keeper.number else "")
            )
        if failure is not None:
            raise failure
        return code

    def _tell_done(self, size: Size, *, interrupted: bool) -> None:
        """Say on standard output where the picture is."""
        if not isinstance(self.observer, JSONLines):
            print_out(self.output.path)
            return
        more = {"animation": self.output.animation, "report": self.output.report}
        written = {name: str(path) for name, path in more.items() if path is not None}
        about = {"output": str(self.output.path), "width": size[1], "height": size[0], "interrupted": interrupted}
        self.observer.emit({"event": "done"} | about | written)

    def _save_more(self, iterate: Iterate | None, code: int) -> OutputError | None:
        """Write the animation and the report after the picture; return what went wrong. In a group all call it."""
        failure: OutputError | None = None
        if self.animation is not None:
            try:
                if iterate is not None and not self.options.quiet and not self.group.rank:
                    self.observer.say(shown(f"writing {self.animation.path}"))
                self.animation.write(iterate)
            except OutputError as error:
                failure = error
            if iterate is None or iterate.ends_run or self.keeper is None:
                self.animation.forget()
            else:
                self.animation.store(now=True)
        if self.report is not None and not self.group.rank:
            status = "finished"
            if iterate is not None and not iterate.ends_run:
                where = f"{iterate.w}x{iterate.h}, iteration {iterate.step} of {iterate.steps}"
                status = f"{'stopped' if code else 'finished early'} at {where}"
            try:
                self.report.write(self.output.path, status)
            except OutputError as error:
                failure = failure or error
        return failure

    def save_kept(self, state: State, picture: torch.Tensor) -> None:
        """End a run that was complete when it went on: write picture, animation and report, and say so. Raises `OutputError`."""
        try:
            self.save_state(state, picture, finished=True)
            if self.animation is not None:
                self.animation.take((state.index, state.step), picture)
            failure = self._save_more(None, 0)
        finally:
            if self.animation is not None:
                self.animation.close()
        if failure is not None:
            raise failure
        if self.keeper is not None and not self.options.keep_checkpoint:
            self.keeper.remove()
        self.observer.close()
        self._tell_done(state.size, interrupted=False)

    def _save_failed(self, error: StyleTransferError) -> None:
        """Write what there is of the animation and the report of a run that failed."""
        if self.group.rank:
            return
        if self.animation is not None:
            with contextlib.suppress(OutputError, MemoryError):
                self.animation.write()
            if self.keeper is not None:
                self.animation.store(now=True)
        with contextlib.suppress(OutputError, MemoryError):
            if self.report is not None and self.output.saved is not None:
                self.report.write(self.output.path, f"failed: {error}")

    def _write_last(self, iterate: Iterate) -> None:
        """Write the picture at the end, and remove the checkpoints of a run that is complete."""
        if not iterate.finite():
            return
        try:
            self._write(iterate, finished=iterate.ends_run)
        except OutputError as error:
            if self.keeper is None:
                raise
            if iterate.ends_run and self.group.size == 1:  # the others have not failed, and would not take part
                self._keep(iterate)
            self.keeper.close()
            kept = self.output.checkpoint
            way = f"go on from {kept} with --resume" if kept is not None and is_there(kept) else "begin again"
            raise OutputError(f"{error}; mend that and {way}") from error
        if self.keeper is None or not iterate.ends_run:
            return
        if self.options.keep_checkpoint:
            self._keep(iterate)
        elif not self.group.rank:
            self.keeper.remove()

    # checkpoints

    def _keep(self, iterate: Iterate) -> None:
        """Keep the state if it is good. A failure is told and does not end the run."""
        if self.keeper is None:
            return
        if iterate.finite():
            state = iterate.state()
            if self.skip and iterate.index < len(iterate.stages) - 1:  # the last scale can be gone on with
                state = dataclasses.replace(state, ended=(*state.ended, (iterate.index, iterate.step)))
            self.keeper.keep(state, self.group, self._room(iterate))
            if self.animation is not None:
                self.animation.store()
        self._tell_problem(self.keeper)

    def _tell_problem(self, keeper: Keeper) -> None:
        for teller in (keeper, self.animation):
            problem = None if teller is None else teller.told()
            if problem is not None:
                self.observer.say(shown(f"style_transfer: note: {problem}; the run goes on without this checkpoint"))

    def _room(self, iterate: Iterate) -> int:
        """Return how many bytes a copy of the state may take beside what the next step takes again."""
        if self.settings.memory is not None:
            return 0
        cpu = torch.device("cpu")
        home = iterate.average.sum
        again = max(0, iterate.memory - memory.used_bytes(cpu)) if home is None or home.device == cpu else 0
        return int(0.5 * (memory.free_bytes(cpu) - again))

    # writing

    def _write_if_possible(self, iterate: Iterate) -> None:
        """Write the picture so far if it is good; a failure, such as a full disk, is told and does not end the run."""
        if not iterate.finite():
            return
        try:
            self._write(iterate, finished=False)
        except OutputError as error:
            self.observer.say(shown(f"style_transfer: note: {error}; the run goes on without saving this iteration"))

    def _write(self, iterate: Iterate, *, finished: bool) -> None:
        """Write the picture and OUTPUT.json beside it. In a group all call it, and rank 0 writes."""
        pixels = to_pixels(iterate.image())
        if self.group.rank:
            return
        self.gathered = pixels if self.group.size > 1 and (self.page or self.preview) is not None else None
        report: dict[str, Any] = {
            "finished": finished,
            "loss": float(iterate.loss),
            "parts": {name: float(part) for name, part in iterate.parts.items()},
            "seconds": round(iterate.seconds, 2),
            "memory_bytes": iterate.memory,
            "checkpoint_seconds": round(self.keeper.cost, 3) if self.keeper is not None else 0,
        }
        pixels = self.output.finish(pixels)
        about = self.output.save(pixels, iterate.size, iterate.step, iterate.steps, report)
        self.output.save_frame(iterate, pixels, about)
        if self.report is not None and (finished or iterate.ends_scale or self.skip):
            self.report.picture(iterate, pixels)

    def save_state(self, state: State, picture: torch.Tensor, *, finished: bool) -> None:
        """Write the picture (1, 3, H, W) of a state that was kept. Raises `OutputError`."""
        steps = self.output.recipe["scales"][state.index]["steps"]
        self.output.save(self.output.finish(to_pixels(picture)), state.size, state.step, steps, {"finished": finished})
