"""Pictures in the terminal: the control sequences, the terminals that get them, and their place above the progress bar."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import Asked, progress, result, run_info
from support.terminals import decode_kitty
from support.tiny import picture

from style_transfer.compute.distributed import LOCAL
from style_transfer.geometry.scales import Stage
from style_transfer.observers.console import Bar
from style_transfer.observers.preview import Preview, drawing
from style_transfer.observers.preview.drawing import iterm2, kitty
from style_transfer.observers.preview.observer import MULTIPLEXERS, PROTOCOLS, detect_protocol
from style_transfer.registry import OBSERVERS

SIZE = 50, 70
STAGES = tuple(Stage(s, (s, s), (), 4) for s in (40, 60))


def pixels(seed: int = 1, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.rint(255 * picture(seed, *size)[0].permute(1, 2, 0).numpy()).astype(np.uint8)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def iterate(step: int = 1, index: int = 0, value: float = 0.5) -> Any:
    stage = STAGES[index]
    return SimpleNamespace(
        index=index, stages=STAGES, step=step, steps=stage.steps, size=stage.size, scale=stage.scale, seconds=1.0, memory=1,
        loss=torch.tensor(1.0), parts={}, done=step, ends_scale=step == stage.steps, ends_run=False, group=LOCAL, blend_mask=None,
        average=SimpleNamespace(value=lambda: torch.full((1, 3, *stage.size), value)),
    )  # fmt: skip


# control sequences, decoded to the picture


def test_kitty_gets_a_png_in_chunks() -> None:
    image = pixels(size=(90, 120))
    keys, found = decode_kitty(kitty(image, 9, 77))
    assert np.array_equal(found, image)
    assert (keys["a"], keys["f"], keys["i"], keys["p"], keys["C"], keys["r"]) == ("T", "100", "77", "1", "1", "9")


def test_iterm2_gets_a_file_with_its_size() -> None:
    image = pixels()
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):([A-Za-z0-9+/=]*)\x07", iterm2(image, (5, 14)))
    assert found is not None
    keys = dict(pair.split("=") for pair in found[1].split(";"))
    data = base64.b64decode(found[2], validate=True)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    assert (keys["inline"], int(keys["size"]), keys["width"], keys["height"]) == ("1", len(data), "14", "5")


# which terminal gets which


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "3"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, "kitty"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210800"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "3"}, None),
        ({"TERM": "linux"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, None),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "KITTY_WINDOW_ID": "3"}, None),
        ({"TERM": "screen.xterm-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "xterm-kitty", "ZELLIJ": "0"}, None),
        ({}, None),
    ],
)
def test_terminals_are_known_by_their_environment(environment: dict[str, str], expected: str | None) -> None:
    assert detect_protocol(environment) == expected


# above the bar


class Screen:
    """A terminal: its rows of text, and the rows at which pictures were drawn. Knows the sequences of bar and preview alone."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0
        self.kept = 0, 0
        self.pictures: list[int] = []

    def feed(self, text: str) -> None:
        pattern = r"(\x1b_G.*?\x1b\\|\x1b\]1337.*?\x07)|\x1b\[(\d*)([A-Z])|\x1b([78])|(\r)|(\n)|([^\x1b])"
        place = 0
        for token in re.finditer(pattern, text, re.DOTALL):
            assert token.start() == place, repr(text[place : place + 30])
            place = token.end()
            if token[1]:
                if not token[1].startswith("\x1b_Gq=2"):
                    self.pictures.append(self.row)
                    self.row, self.column = self.row + 2, 7  # somewhere
            elif token[3]:
                assert token[3] == "A"
                self.row -= int(token[2] or 1)
                assert self.row >= 0
            elif token[4] == "7":
                self.kept = self.row, self.column
            elif token[4] == "8":
                self.row, self.column = self.kept
            elif token[5]:
                self.column = 0
            elif token[6]:
                self.row, self.column = self.row + 1, 0
            else:
                while self.row >= len(self.rows):
                    self.rows.append("")
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + token[7] + line[self.column + 1 :]
                self.column += 1
            while self.row >= len(self.rows):
                self.rows.append("")
        assert place == len(text)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "window", lambda stream: ((30, 80), (20, 10)))


def started(stream: io.StringIO, protocol: str = "kitty", **about: Any) -> tuple[Bar, Preview]:
    """Return a console and a preview that follow a run."""
    bar, preview = Bar(stream), Preview(protocol)
    run = run_info(stages=STAGES, console=bar, **about)
    bar.begin(run)
    preview.begin(run)
    return bar, preview


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pictures_stay_in_their_place_above_the_bar(protocol: str, window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bar, "INTERVAL", 0)
    stream = Terminal()
    bar, preview = started(stream, protocol)
    for observer in (bar, preview) * 2:
        observer.step(progress(iterate(1 if observer is bar else 4), 61))
    bar.message("a note")
    for observer in (bar, preview):
        observer.step(progress(iterate(1, 1), 61))
    preview.saved(progress(iterate(2, 1)), np.zeros((60, 60, 3), np.float32))
    bar.end(result(iterate(2, 1)))
    screen = Screen()
    screen.feed(stream.getvalue())
    first, again, third, fourth = screen.pictures
    assert first == again and third == fourth
    note = next(row for row, text in enumerate(screen.rows) if "a note" in text)
    assert first + 10 == note < third
    last = third + 10
    assert "60x60" in screen.rows[last]
    assert [row for row, text in enumerate(screen.rows) if "|" in text] == [last]


def test_pictures_within_a_scale_are_drawn_rarely(window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    _, preview = started(stream)
    now = [100.0]
    monkeypatch.setattr(drawing.time, "monotonic", lambda: now[0])

    def drawn(step: int) -> bool:
        before = stream.getvalue().count("a=T")
        preview.step(progress(iterate(step)))
        return stream.getvalue().count("a=T") > before

    assert drawn(1) and not drawn(2)
    now[0] += 1.9
    assert not drawn(3)
    now[0] += 0.2
    assert drawn(3) and not drawn(3)
    assert drawn(4)  # the end of the scale


def last_drawn(stream: io.StringIO) -> np.ndarray:
    text = stream.getvalue()
    _, found = decode_kitty(text[text.rindex("\x1b_Ga=T") : text.rindex("\x1b\\") + 2])
    return found


def test_colours_are_finished(window: None) -> None:
    stream = Terminal()
    _, preview = started(stream, finish=lambda found: found * 0 + np.float32([1, 0, 0]))
    preview.step(progress(iterate()))
    found = last_drawn(stream)
    assert (found == [255, 0, 0]).all() and found.shape[0] == 200


def test_a_saved_picture_is_shown_unless_its_step_is_shown_already(window: None) -> None:
    stream = Terminal()
    _, preview = started(stream)
    white = np.ones((60, 60, 3), np.float32)
    preview.step(progress(iterate(1, value=0.25)))
    preview.saved(progress(iterate(1)), white)
    assert (last_drawn(stream) == 64).all()
    preview.step(progress(iterate(2)))
    preview.saved(progress(iterate(2)), white)  # it may be the last of a run that was stopped
    assert (last_drawn(stream) == 255).all()


def test_a_group_shows_saved_pictures_alone(window: None) -> None:
    stream = Terminal()
    _, preview = started(stream, group=SimpleNamespace(size=2, rank=0))
    preview.step(progress(iterate()))
    assert "\x1b_G" not in stream.getvalue()
    preview.saved(progress(iterate()), np.full((300, 400, 3), 0.25, np.float32))
    assert (last_drawn(stream) == 64).all()


@pytest.mark.parametrize("size", [(8, 80), (30, 12)])
def test_a_tiny_window_shows_nothing(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(drawing, "window", lambda stream: (size, (20, 10)))
    _, preview = started(stream)
    preview.step(progress(iterate()))
    assert "\x1b_G" not in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_no_picture(window: None) -> None:
    stream = io.StringIO()
    bar, preview = started(stream)
    bar.draw("\x1b_Gpicture\x1b\\", 5)
    preview.step(progress(iterate()))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("environment", "given", "command", "expected"),
    [
        ({"TERM": "xterm-kitty"}, {}, {}, "kitty"),
        ({"TERM": "xterm-256color"}, {}, {}, None),
        ({"TERM": "xterm-256color"}, {"preview_protocol": "iterm2"}, {}, "iterm2"),
        ({"TERM": "xterm-kitty"}, {"preview": False}, {}, None),
        ({"TERM": "xterm-kitty"}, {}, {"quiet": True}, None),
        ({"TERM": "xterm-kitty"}, {}, {"json": True}, None),
        ({"TERM": "xterm-kitty"}, {}, {"rank": 1}, None),
    ],
)
def test_a_preview_needs_a_bar_and_a_terminal_that_can(
    environment: dict[str, str], given: dict[str, Any], command: dict[str, Any], expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in (*MULTIPLEXERS, "TERM", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "KONSOLE_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = OBSERVERS["preview"].create(Asked({"preview": True} | given, **command))
    assert (None if made is None else made.protocol) == expected


def test_the_window_has_a_size_even_where_the_system_reports_none() -> None:
    (rows, columns), cell = drawing.window(Terminal())
    assert rows >= 1 and columns >= 1 and cell == drawing.CELL


def test_a_closed_terminal_is_ignored(window: None) -> None:
    stream = Terminal()
    bar, _ = started(stream)
    assert bar._bar is not None
    bar._bar.clear = bar._bar.refresh = lambda: None  # tqdm's own output is not tested
    stream.write = lambda text: (_ for _ in ()).throw(BrokenPipeError())  # type: ignore[method-assign]
    bar.draw("x", 3)
