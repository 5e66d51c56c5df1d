"""Where a picture goes: the result, the recipe beside it, numbered pictures on the way, the checkpoint."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from .. import __version__
from ..cli import batch
from ..engine import checkpoint
from ..errors import CheckpointError, OutputError, SettingsError
from ..evaluation.memory import kept_bytes
from ..files import atomic as files
from ..files.atomic import is_folder, is_there, same_file
from ..networks.weights import digest
from ..pictures import images
from ..settings.settings import INITS, Settings

if TYPE_CHECKING:
    from ..engine.checkpoint import Found, State
    from ..engine.iterate import Iterate
    from ..geometry.scales import Size, Stage
    from ..networks.graph import Network
    from ..pictures.color import Pixels
    from .batch import Task
    from .options import Options

LIBRARIES: Final = ("torch", "numpy", "pillow", "tifffile", "imagecodecs")
"""The libraries whose versions can change a picture; they go into its metadata."""


class Output:
    """The files of one picture, checked before the work begins, and what is written into them.

    `several` says that it is one of many in a command, which go into folders that are made for them. `note` tells the user.
    """

    def __init__(self, task: Task, settings: Settings, options: Options, *, several: bool, note: Callable[[str], None]) -> None:
        self.task, self.settings, self.options, self.several, self.note = task, settings, options, several, note
        self.path = task.output
        self.sidecar = self.path.with_name(self.path.name + ".json")
        given = options.checkpoint
        beside = self.path.with_name(self.path.name + ".checkpoint")
        self.checkpoint = None if given == "off" else beside if given is None else Path(given)
        self.pattern = None if options.save_iterates is None else batch.iterate_pattern(options.save_iterates)
        self.animation = None if options.animation is None else batch.beside("--animation", options.animation, task)
        self.report = None if options.report is None else batch.beside("--report", options.report, task)
        self.found: Found | None = None
        """What --resume goes on from."""
        self.frames = 0
        """How many numbered pictures were written."""
        self.saved: Size | None = None
        """The size of the picture that was written last."""
        self.finish: Callable[[Pixels], Pixels] = lambda pixels: pixels
        """What gives painted pixels their final colours."""
        self.recipe: dict[str, Any] = {}

    @property
    def roles(self) -> list[tuple[str, str]]:
        """The files that the picture is made from, each with what it is."""
        found = [("content", self.task.content), *(("style", path) for path in self.task.styles)]
        found += [("mask of the content", path) for path in self.options.content_mask or ()]
        found += [("mask of a style", path) for path in self.options.style_mask or ()]
        if self.settings.init not in INITS:
            found.append(("picture to start from", self.settings.init))
        found += [(role, path) for role, path in (("weights", self.settings.weights), ("profile", self.options.proof)) if path]
        return found

    @property
    def inputs(self) -> list[str]:
        """The files that the picture is made from."""
        return [path for _, path in self.roles]

    @property
    def there(self) -> bool:
        """Whether the result is there already: finished, or not made by this program. Says so."""
        if not is_there(self.path) or self.options.overwrite:
            return False
        settings: object = None
        finished: object = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            recipe = json.loads(self.sidecar.read_text("utf-8"))
            finished, settings = recipe.get("finished"), recipe.get("settings")
        if finished is False:
            return False
        if not self.options.quiet:
            other = settings is not None and settings != self.settings.as_dict()
            how = "is there already, painted with other settings" if other else "is there already"
            self.note(f"{self.path} {how}; --overwrite paints it again")
        return True

    def check(self) -> None:
        """Raise `OutputError` or `SettingsError` if a file cannot be written, or would be written over an input."""
        images.suffix_of(self.path)
        if self.several and not self.options.dry_run:
            batch.make_folder(self.path)
        folder = is_folder(self.path.parent) or not self.several
        if folder:
            images.check_output(self.path)
            files.check_target(self.sidecar)
        for target in (self.path, self.sidecar):
            for path in self.inputs:
                if same_file(target, Path(path)):
                    raise SettingsError(f"--output {target} is also an input; choose another name")
        if self.checkpoint is not None:
            if folder:
                files.check_target(self.checkpoint)
            for other in (self.path, self.sidecar, *map(Path, self.inputs)):
                if same_file(self.checkpoint, other):
                    raise SettingsError(f"--checkpoint {self.checkpoint} is also an input or the output; choose another name")
        elif self.options.resume:
            raise SettingsError("--resume needs a checkpoint, and --checkpoint is off")
        others = [self.path, self.sidecar, *([] if self.checkpoint is None else [self.checkpoint]), *map(Path, self.inputs)]
        for flag, more in (("--animation", self.animation), ("--report", self.report)):
            if more is None:
                continue
            if self.several and not self.options.dry_run:
                batch.make_folder(more)
            if is_folder(more.parent) or not self.several:
                files.check_target(more)
            if any(same_file(more, other) for other in others):
                raise SettingsError(f"{flag} {more} is also an input or another output; choose another name")
            others.append(more)

    def hold(self, held: contextlib.ExitStack) -> None:
        """Keep other runs away while `held` lasts, remove what runs that died left there, and find what to go on from."""
        held.enter_context(files.locked(self.path))
        files.clean(self.path.resolve().parent)
        for more in (self.animation, self.report):
            if more is not None:
                files.clean(more.resolve().parent)
        if self.checkpoint is None:
            return
        if self.options.checkpoint is not None:
            held.enter_context(files.locked(self.checkpoint))
            files.clean(self.checkpoint.resolve().parent)
        if not self.options.resume:
            return
        self.found = checkpoint.newest(self.checkpoint)
        if self.found is not None:
            for remark in self.found.remarks:
                self.note(remark)
        elif not self.several:
            raise CheckpointError(
                f"--resume: there is no checkpoint {self.checkpoint}; leave out --resume to begin from the start"
            )

    def check_room(self, stages: Sequence[Stage], *, alpha: bool) -> None:
        """Raise `OutputError` if a file cannot hold the picture at its last size, or the disk has no room for what is written."""
        height, width = size = stages[-1].size
        if is_folder(self.path.parent) or not self.several:
            images.check_output(self.path, size, alpha=alpha)
        if self.options.dry_run:
            return
        if self.pattern is not None:
            frame = self._frame_path(self.pattern, 1, 1, stages[0].scale, 1)
            batch.make_folder(frame)
            images.check_output(frame, size, alpha=alpha)
        needs = {self.path: round(1.2 * height * width * (4 if alpha else 3) * 2) + 2**20}
        if self.checkpoint is not None:
            needs[self.checkpoint] = round(3.1 * kept_bytes(size, self.settings.optimizer, self.settings.lbfgs_history))
        files.check_space(needs)

    def describe(self, argv: Sequence[str], network: Network, devices: Sequence[str], stages: Sequence[Stage]) -> None:
        """Put into `recipe` what is needed to make the picture again."""

        def described(path: str) -> dict[str, str]:
            return {"name": Path(path).name, "sha256": digest(Path(path))}

        self.recipe = {
            "program": f"style_transfer {__version__}",
            "command": shlex.join(["style_transfer", *argv]),
            "settings": self.settings.as_dict(),
            "dpi": self.options.dpi,
            "content": described(self.task.content),
            "styles": [described(path) for path in self.task.styles],
            "network": {"name": network.spec.name, "weights": network.source, "note": network.note},
            "precision": network.precision,
            "devices": list(devices),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
            "scales": [{"width": s.size[1], "height": s.size[0], "steps": s.steps} for s in stages],
        }
        for name, masks in (("content_masks", self.options.content_mask), ("style_masks", self.options.style_mask)):
            if masks:
                self.recipe[name] = [described(path) for path in masks]
        for name, path in (("init", self.settings.init), ("proof", self.options.proof)):
            if path and path not in INITS:
                self.recipe[name] = described(path)

    @property
    def identity(self) -> str:
        """Words that are the same for two runs that paint the same picture, wherever they do it."""
        given = {name: value for name, value in self.recipe["settings"].items() if name not in checkpoint.ANYWHERE}
        made_from = ("content", "styles", "content_masks", "style_masks", "init")
        return json.dumps([given, *(self.recipe.get(name) for name in made_from)], sort_keys=True)

    def resume(self, state: State, stages: Sequence[Stage]) -> None:
        """Count the numbered pictures that were written before a state, and note which scales ended before their time."""
        every, self.frames, ended = self.options.save_every, 0, dict(state.ended)
        for index, stage in enumerate(stages[: state.index + 1]):
            last = ended.get(index, stage.steps)
            done = last if index < state.index else state.step
            self.frames += done // every if every else 0
            self.frames += done == last and not (every and done % every == 0)
        for index, step in state.ended:
            self.skipped(index, step)

    def skipped(self, index: int, step: int) -> None:
        """Note in the recipe that a scale ended after a step that is not its last."""
        self.recipe.setdefault("skipped", []).append({"scale": index + 1, "after": step})

    def save(self, pixels: Pixels, size: Size, step: int, steps: int, report: dict[str, Any]) -> dict[str, str]:
        """Write finished pixels with the recipe in them, and the recipe with a report beside them; return what is in the picture.

        Raises `OutputError`.
        """
        recipe = self.recipe | {"width": size[1], "height": size[0], "step": step, "steps": steps}
        inside = {name: value for name, value in recipe.items() if name != "command"}
        inside["network"] = {name: value for name, value in recipe["network"].items() if name != "note"}  # which has paths
        names = {name: Path(path).name for name in ("weights", "init") if (path := recipe["settings"][name])}
        inside["settings"] = recipe["settings"] | names  # file names, not where they lie on this machine
        about = {"Software": self.recipe["program"], "Recipe": json.dumps(inside)}
        images.save(self.path, pixels, dpi=self.options.dpi, metadata=about)
        files.write_text(self.sidecar, json.dumps(recipe | report, indent=2) + "\n")
        self.saved = size
        return about

    def save_frame(self, iterate: Iterate, pixels: Pixels, about: dict[str, str]) -> None:
        """Write a numbered picture, if they are asked for; a failure is told and does not end the run."""
        if self.pattern is None:
            return
        self.frames += 1
        before = sum(stage.steps for stage in iterate.stages[: iterate.index])
        path = self._frame_path(self.pattern, self.frames, before + iterate.step, iterate.scale, iterate.step)
        try:
            if any(same_file(path, other) for other in (self.path, self.sidecar, *map(Path, self.inputs))):
                raise OutputError(f"--save-iterates {path} is also an input or the result")
            images.save(path, pixels, dpi=self.options.dpi, metadata=about)
        except OutputError as error:
            self.note(f"{error}; the run goes on without saving this iteration")

    def _frame_path(self, pattern: str, number: int, iteration: int, scale: int, step: int) -> Path:
        values = self.task.names | {"number": number, "iteration": iteration, "scale": scale, "step": step}
        return batch.fill("--save-iterates", pattern, values)
