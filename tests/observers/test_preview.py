"""Pictures in the terminal: what each protocol's sequences say, who gets them, and that they leave the bar alone."""

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
from support.terminals import decode_kitty
from support.tiny import picture

from style_transfer.compute.distributed import LOCAL
from style_transfer.geometry.scales import Stage
from style_transfer.observers import preview
from style_transfer.observers.console import Bar
from style_transfer.observers.preview import Preview, iterm2, kitty, protocol, sixel

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
        loss=torch.tensor(1.0), parts={}, done=step, ends_scale=step == stage.steps, ends_run=False, group=LOCAL, cover=None,
        average=SimpleNamespace(value=lambda: torch.full((1, 3, *stage.size), value)),
    )  # fmt: skip


# sequences, decoded back to the picture


def decode_sixel(text: str) -> np.ndarray:
    """Return the pixels of a picture in sixels, after DEC STD 070."""
    body = re.fullmatch(r"\x1bP0;1;0q(.*)\x1b\\", text, re.DOTALL)
    assert body is not None
    colours: dict[int, tuple[int, int, int]] = {}
    image: np.ndarray | None = None
    x = y = colour = 0
    place = 0
    for token in re.finditer(
        r'"(\d+);(\d+);(\d+);(\d+)|#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)', body[1]
    ):
        assert token.start() == place, body[1][place : place + 20]
        place = token.end()
        if token[3]:
            image = np.full((int(token[4]), int(token[3]), 3), -1)
        elif token[5]:
            colours[int(token[5])] = tuple(int(token[n]) for n in (6, 7, 8))  # type: ignore[assignment]
        elif token[9]:
            colour = int(token[9])
        elif token[13]:
            x = 0
        elif token[14]:
            x, y = 0, y + 6
        else:
            count, character = (int(token[10]), token[11]) if token[10] else (1, token[12])
            assert image is not None
            for bit in range(6):
                if (ord(character) - 63) >> bit & 1:
                    assert y + bit < image.shape[0] and x + count <= image.shape[1]
                    image[y + bit, x : x + count] = np.rint(255 * np.array(colours[colour]) / 100)
            x += count
    assert image is not None and place == len(body[1]) and (image >= 0).all()
    return image


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


@pytest.mark.parametrize("size", [(50, 70), (48, 1), (7, 300), (1, 5)])
def test_sixels_are_the_picture_in_few_colours(size: tuple[int, int]) -> None:
    image = pixels(size=size)
    text = sixel(image)
    found = decode_sixel(text)
    assert found.shape == image.shape
    assert np.abs(found - image).mean() < 12
    assert len(text) < 4 * image.size + 3000


def test_sixels_of_few_colours_are_exact_to_a_percent() -> None:
    image = np.zeros((13, 40, 3), np.uint8)
    image[:, 10:20], image[:, 20:], image[5] = (255, 0, 0), (0, 128, 255), (9, 200, 30)
    assert np.abs(decode_sixel(sixel(image)) - image).max() <= 2


# who gets which


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
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
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
    assert protocol(environment) == expected


# beside the bar


class Screen:
    """What a terminal shows: rows of text, and at which row pictures were drawn. Knows what bar and preview write, no more."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0
        self.kept = 0, 0
        self.pictures: list[int] = []

    def feed(self, text: str) -> None:
        pattern = r"(\x1b_G.*?\x1b\\|\x1b\]1337.*?\x07|\x1bP.*?\x1b\\)|\x1b\[(\d*)([A-Z])|\x1b([78])|(\r)|(\n)|([^\x1b])"
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
    monkeypatch.setattr(preview, "window", lambda stream: ((30, 80), (20, 10)))


@pytest.mark.parametrize("kind", preview.PROTOCOLS)
def test_the_bar_stays_whole_and_the_picture_in_its_place_above(kind: str, window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bar, "INTERVAL", 0)
    stream = Terminal()
    bar = Bar(100, stream)
    shows = Preview(bar, kind)
    for step in (1, 4):
        bar.update(iterate(step), 61)
        shows.update(iterate(step, value=step / 5))
    bar.say("a note")
    bar.update(iterate(1, 1), 61)
    shows.update(iterate(1, 1))
    shows.show(iterate(2, 1))
    bar.close()
    screen = Screen()
    screen.feed(stream.getvalue())
    first, again, third, fourth = screen.pictures
    assert first == again and third == fourth
    note = next(row for row, text in enumerate(screen.rows) if "a note" in text)
    assert first + 10 == note < third
    last = third + 10
    assert "60x60" in screen.rows[last]
    assert [row for row, text in enumerate(screen.rows) if "|" in text] == [last]


def test_pictures_are_drawn_seldom(window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    shows = Preview(Bar(100, stream), "kitty")
    now = [100.0]
    monkeypatch.setattr(preview.time, "monotonic", lambda: now[0])

    def drawn(step: int) -> bool:
        before = stream.getvalue().count("a=T")
        shows.update(iterate(step))
        return stream.getvalue().count("a=T") > before

    assert drawn(1) and not drawn(2)
    now[0] += 1.9
    assert not drawn(3)
    now[0] += 0.2
    assert drawn(3) and not drawn(3)
    assert drawn(4)  # the end of the scale


def test_colours_are_finished(window: None) -> None:
    stream = Terminal()
    Preview(Bar(100, stream), "sixel", finish=lambda found: found * 0 + np.float32([1, 0, 0])).show(iterate())
    text = stream.getvalue()
    found = decode_sixel(text[text.index("\x1bP") : text.index("\x1b\\") + 2])
    assert (found == [255, 0, 0]).all() and found.shape[0] % 6 == 0 and found.shape[0] <= 200


def test_a_group_shows_what_was_saved_last(window: None) -> None:
    stream = Terminal()
    saved: list[np.ndarray | None] = [None]
    shows = Preview(Bar(100, stream), "kitty", latest=lambda: saved[0])
    shows.show(iterate())
    assert "\x1b_G" not in stream.getvalue()
    saved[0] = np.full((300, 400, 3), 0.25, np.float32)
    shows.show(iterate())
    text = stream.getvalue()
    _, found = decode_kitty(text[text.index("\x1b_G") : text.rindex("\x1b\\") + 2])
    assert (found == 64).all()


@pytest.mark.parametrize("size", [(8, 80), (30, 12)])
def test_a_tiny_window_shows_nothing(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(preview, "window", lambda stream: (size, (20, 10)))
    Preview(Bar(100, stream), "kitty").show(iterate())
    assert "\x1b_G" not in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_no_picture(window: None) -> None:
    stream = io.StringIO()
    bar = Bar(100, stream)
    bar.draw("\x1b_Gpicture\x1b\\", 5)
    Preview(bar, "kitty").show(iterate())
    assert stream.getvalue() == ""


def test_the_window_has_a_size_even_where_the_system_tells_none() -> None:
    (rows, columns), cell = preview.window(Terminal())
    assert rows >= 1 and columns >= 1 and cell == preview.CELL


def test_a_terminal_that_has_gone_is_no_error(window: None) -> None:
    stream = Terminal()
    bar = Bar(100, stream)
    bar.bar.clear = bar.bar.refresh = lambda: None  # tqdm's own output is not in question
    stream.write = lambda text: (_ for _ in ()).throw(BrokenPipeError())  # type: ignore[method-assign]
    bar.draw("x", 3)
