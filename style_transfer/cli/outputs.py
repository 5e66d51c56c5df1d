"""The files of one picture: their names, the checks before the run, and writing them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import checkpoint_file
from ..engine.checkpoint_file import Checkpoint
from ..engine.iterate import Iterate
from ..engine.state import State
from ..errors import CheckpointError, OutputError, SettingsError
from ..evaluation.planner import checkpoint_bytes
from ..files import (
    Task,
    check_space,
    check_target,
    exists,
    fill,
    is_folder,
    locked,
    remove_leftovers,
    same_file,
    shown,
    write_text,
)
from ..geometry import Sheet, Size, Stage
from ..pictures import Pixels, check_output, format_of, save
from ..pictures.credits import Credits, read_credits
from ..pictures.press import Conversion, Press, read_press
from ..pictures.proofing import GamutMap, GamutReport, SoftProof
from ..pictures.working import WorkingSpace, read_space
from ..settings import INITS, Resolved
from ..settings.command import RGB_SPACES, CommandOptions
from .recipe import embedded
from .tasks import iterate_pattern, make_folder, names_folder


class OutputFiles:
    """The files read and written for one picture.

    `several` tells whether the command paints several pictures; their folders are made, as is one that --output names. `beside`
    are the files that observers write, each with the option that names it.
    """

    def __init__(
        self, task: Task, settings: Resolved, options: CommandOptions, *, several: bool, beside: Sequence[tuple[str, Path]] = ()
    ) -> None:
        self.task, self.settings, self.options, self.several, self.beside = task, settings, options, several, tuple(beside)
        self.path = task.output
        self.makes_folders = several or names_folder(options.output or "")
        self.sidecar = self.path.with_name(self.path.name + ".json")
        chosen = options.checkpoint
        default = self.path.with_name(self.path.name + ".checkpoint")
        self.checkpoint = None if chosen == "off" else default if chosen is None else Path(chosen)
        self.pattern = None if options.save_iterates is None else iterate_pattern(options.save_iterates)

    @property
    def roles(self) -> list[tuple[str, str]]:
        """The files that are read for the picture, each with its role."""
        options, settings = self.options, self.settings
        found = [("content", self.task.content), *(("style", path) for path in self.task.styles)]
        found += [("mask of the content", path) for path in options.content_mask or ()]
        found += [("mask of a style", path) for path in options.style_mask or ()]
        if settings.init not in INITS:
            found.append(("initial picture", settings.init))
        space = None if options.output_space in RGB_SPACES else options.output_space
        profiles = (("profile", path) for path in (options.proof, options.output_profile, options.proof_output, space))
        more = ("weights", settings.weights), *profiles
        return found + [(role, path) for role, path in more if path]

    @functools.cached_property
    def space(self) -> WorkingSpace | None:
        """The working space, None for sRGB. Raises `SettingsError`."""
        return read_space("--output-space", self.options.output_space)

    @functools.cached_property
    def credits(self) -> Credits | None:
        """What the content says of itself, if that is to be kept."""
        if not self.options.keep_metadata:
            return None
        found = read_credits(self.task.content)
        return found if self.options.keep_place else found.without_place()

    @functools.cached_property
    def press(self) -> Press | None:
        """What the result is converted to, if --output-profile asks for that. Raises `SettingsError`."""
        return self._press("--output-profile", self.options.output_profile)

    @functools.cached_property
    def proof(self) -> Press | None:
        """What the result is soft-proofed for, if --proof-output asks for that. Raises `SettingsError`."""
        return self._press("--proof-output", self.options.proof_output)

    def _press(self, flag: str, path: str | None) -> Press | None:
        options = self.options
        if path is None:
            return None
        return read_press(flag, path, options.intent, black_point=options.black_point, ink_limit=options.ink_limit)

    @property
    def proofs(self) -> tuple[Path, Path]:
        """The files of the soft proof and of the gamut map."""
        return self.path.with_name(self.path.name + ".proof.png"), self.path.with_name(self.path.name + ".gamut.png")

    @property
    def inputs(self) -> list[str]:
        """The files that are read for the picture."""
        return [path for _, path in self.roles]

    def is_done(self, note: Callable[[str], None]) -> bool:
        """Return whether the result exists, finished or not made by this program, and is to be kept; `note` reports it."""
        if not exists(self.path) or self.options.overwrite:
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
            how = "exists already, painted with other settings" if other else "exists already"
            note(f"{self.path} {how}; --overwrite paints it again")
        return True

    def check(self) -> None:
        """Raise `OutputError` or `SettingsError` if a file cannot be written, or would overwrite another one."""
        targets = [("--output", self.path), ("--output", self.sidecar)]
        if self.checkpoint is not None:
            targets.append(("--checkpoint", self.checkpoint))
        elif self.options.resume:
            raise SettingsError("--resume needs a checkpoint, but --checkpoint is off")
        if self.proof is not None:
            targets += [("--proof-output", path) for path in self.proofs]
        targets += self.beside
        format_of(self.path)
        others = list(map(Path, self.inputs))
        for flag, target in targets:
            if self.makes_folders and not self.options.dry_run:
                make_folder(target)
            if is_folder(target.parent) or not self.makes_folders:
                check_target(target)
            if any(same_file(target, other) for other in others):
                raise SettingsError(f"{flag} {target} is also an input or another output; choose another name")
            others.append(target)
        if self.options.crop_marks and self.path.suffix.lower() != ".pdf":
            raise SettingsError(f"--crop-marks goes with a .pdf, not with {shown(self.path)}")
        _ = self.space  # raises SettingsError
        if is_folder(self.path.parent) or not self.makes_folders:
            check_output(self.path, lossless=self.options.lossless, press=self.press)

    def lock(self, held: contextlib.ExitStack) -> None:
        """Lock the outputs against other runs while `held` lasts, and remove what crashed runs left there."""
        held.enter_context(locked(self.path))
        for folder in {path.resolve().parent for path in (self.path, *(path for _, path in self.beside))}:
            remove_leftovers(folder)
        if self.checkpoint is not None and self.options.checkpoint is not None:
            held.enter_context(locked(self.checkpoint))
            remove_leftovers(self.checkpoint.resolve().parent)

    def check_resume(self) -> None:
        """Raise `CheckpointError` if there is no checkpoint to resume from; of several pictures, some may have none."""
        kept = self.checkpoint
        if kept is None or not self.options.resume or self.several:
            return
        if not (exists(kept) or exists(checkpoint_file.older(kept))):
            raise CheckpointError(f"--resume: there is no checkpoint {kept}; leave out --resume to start from the beginning")

    def load_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to resume from, or None. Raises `CheckpointError`."""
        if self.checkpoint is None or not self.options.resume:
            return None
        return checkpoint_file.newest(self.checkpoint)

    def check_space(self, stages: Sequence[Stage], *, alpha: bool) -> None:
        """Raise `OutputError` if a format cannot hold the picture at its last size, or the disk has no room for the files."""
        height, width = size = stages[-1].size
        if is_folder(self.path.parent) or not self.makes_folders:
            check_output(self.path, size, alpha=alpha, lossless=self.options.lossless, press=self.press)
        if self.options.dry_run:
            return
        if self.pattern is not None:
            frame = self.frame(1, 1, stages[0].scale, 1)
            make_folder(frame)
            check_output(frame, size, alpha=alpha)
        needs = {self.path: round(1.2 * height * width * (4 if alpha or self.options.output_profile else 3) * 2) + 2**20}
        if self.options.proof_output is not None:
            needs |= dict.fromkeys(self.proofs, round(1.2 * height * width * 3 * 2))
        if self.checkpoint is not None:
            needs[self.checkpoint] = round(3.1 * checkpoint_bytes(size, self.settings))
        check_space(needs)

    def frame(self, number: int, iteration: int, scale: int, step: int) -> Path:
        """Return the name of a numbered picture of --save-iterates."""
        values = self.task.names | {"number": number, "iteration": iteration, "scale": scale, "step": step}
        return fill("--save-iterates", self.pattern or "", values)


class PictureWriter:
    """Writes the pictures of a run: the result with its recipe, and the numbered pictures on the way.

    `note` reports what could not be written. `state` is the state that the run resumes from, whose numbered pictures exist.
    `sheet` is the print, if the command asks for one.
    """

    def __init__(
        self,
        files: OutputFiles,
        recipe: Mapping[str, Any],
        note: Callable[[str], None],
        state: State | None,
        stages: Sequence[Stage],
        sheet: Sheet | None,
    ) -> None:
        self.files, self.recipe, self.note, self.sheet = files, recipe, note, sheet
        self.frames = 0
        """The number of numbered pictures written so far."""
        self.saved: Size | None = None
        """The size of the picture written last."""
        self.skipped: list[dict[str, int]] = []
        """The scales that were finished early, each with its last step."""
        if state is not None:
            self._count(state, stages)

    def _count(self, state: State, stages: Sequence[Stage]) -> None:
        every, ended = self.files.options.save_every, dict(state.ended)
        for index, stage in enumerate(stages[: state.index + 1]):
            last = ended.get(index, stage.steps)
            done = last if index < state.index else state.step
            self.frames += done // every if every else 0
            self.frames += done == last and not (every and done % every == 0)
        for index, step in state.ended:
            self.skip(index, step)

    def skip(self, index: int, step: int) -> None:
        """Note in the recipe that a scale, from 0, was finished early after a step."""
        self.skipped.append({"scale": index + 1, "after": step})

    def save(self, pixels: Pixels, size: Size, step: int, steps: int, report: Mapping[str, Any], *, last: bool) -> dict[str, str]:
        """Write finished pixels with the recipe in them, and OUTPUT.json with a report; return the picture's metadata.

        The `last` picture of a run is soft-proofed, if the command asks for that. Raises `OutputError`.
        """
        recipe = {**self.recipe, **({"skipped": self.skipped} if self.skipped else {})}
        recipe |= {"width": size[1], "height": size[0], "step": step, "steps": steps}
        metadata = {"Software": str(self.recipe["program"]), "Recipe": embedded(recipe)}
        options, files = self.files.options, self.files
        about: dict[str, Any] = {"lossless": options.lossless, "press": files.press, "space": files.space}
        about |= {"sheet": self.sheet, "crop_marks": options.crop_marks, "credits": files.credits}
        save(files.path, pixels, dpi=options.resolution, metadata=metadata, **about)
        proofed = self._proof(pixels) if last else {}
        write_text(files.sidecar, json.dumps(recipe | dict(report) | proofed, indent=2) + "\n")
        self.saved = size
        return metadata

    def _proof(self, pixels: Pixels) -> dict[str, Any]:
        """Write the soft proof and the gamut map of finished pixels, and return what OUTPUT.json holds of them."""
        press, space = self.files.proof, self.files.space
        if press is None:
            return {}
        conversions: tuple[Conversion, ...] = (SoftProof(press), GamutMap(press))
        for path, conversion in zip(self.files.proofs, conversions, strict=True):
            save(path, pixels[..., :3], dpi=self.files.options.resolution, press=conversion, space=space)
        found = GamutReport.of(pixels, press, space)
        if not self.files.options.quiet:
            self.note(f"{self.files.proofs[0]}: {found}")
        return {"gamut": found.recorded()}

    def save_frame(self, iterate: Iterate, pixels: Pixels, metadata: dict[str, str]) -> None:
        """Write a numbered picture, if asked for; a failure is reported and does not end the run."""
        if self.files.pattern is None:
            return
        self.frames += 1
        before = sum(stage.steps for stage in iterate.stages[: iterate.index])
        path = self.files.frame(self.frames, before + iterate.step, iterate.scale, iterate.step)
        try:
            if any(same_file(path, other) for other in (self.files.path, self.files.sidecar, *map(Path, self.files.inputs))):
                raise OutputError(f"--save-iterates {path} is also an input or the result")
            make_folder(path)  # its name may hold the scale
            lossless = self.files.options.lossless and format_of(path).lossless
            dpi, space = self.files.options.resolution, self.files.space
            save(path, pixels, dpi=dpi, metadata=metadata, lossless=lossless, space=space)
        except OutputError as error:
            self.note(f"{error}; the run continues without saving this iteration")
