"""`StyleTransfer`, as users of style-transfer-pytorch know it."""

from __future__ import annotations

import gc
import io
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from style_transfer import StyleTransfer
from style_transfer.engine.iterate import Iterate
from style_transfer.errors import DeviceError, ImageError, SettingsError

SHORT = {"min_scale": 32, "end_scale": 46, "initial_iterations": 3, "iterations": 2}


def test_the_result_is_returned_as_a_picture_an_array_and_a_tensor(place: Path) -> None:
    content, style = Image.open("c.png"), Image.open("s.png")
    seen = []
    transfer = StyleTransfer(devices=["cpu"], pooling="max", weights="w.safetensors")
    with pytest.raises(SettingsError, match="call stylize first"):
        transfer.get_image()
    result = transfer.stylize(content, [style, style], style_weights=[1, 3], callback=seen.append, **SHORT)
    assert (result.size, result.mode, len(seen)) == ((46, 37), "RGB", 5)
    assert transfer.get_image("np_uint16").dtype == np.uint16
    assert transfer.get_image_tensor().shape == (3, 37, 46)
    assert abs(np.asarray(result) / 255 - transfer.get_image("np_uint16") / 65535).max() < 0.5 / 255 + 1e-6
    assert transfer.stylize(content, [style], init=style, **SHORT).size == (46, 37)
    with pytest.raises(SettingsError, match="np_uint16"):
        transfer.get_image("uint8")


def test_networks_are_kept_until_another_precision_is_asked_for(place: Path) -> None:
    content, style = Image.open("c.png"), Image.open("s.png")
    transfer = StyleTransfer(devices=["cpu"], weights="w.safetensors")
    transfer.stylize(content, [style], **SHORT)
    network = transfer._networks[0]
    kept = []
    for more in ({"precision": "fp32"}, {"precision": "fp32", "end_scale": 40}, {"precision": "bf16"}):
        transfer.stylize(content, [style], **SHORT | more)
        kept.append((transfer._networks[0] is network, transfer._networks[0].precision))
        network = transfer._networks[0]
    assert kept == [(False, "fp32"), (True, "fp32"), (False, "bf16")]
    with pytest.raises(DeviceError):
        transfer.stylize(content, [style], **SHORT | {"precision": "tf32"})
    assert transfer.stylize(content, [style], **SHORT | {"precision": "bf16"}).size == (46, 37)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"pooling": "max"}, {"contentweight": 1}, {"init": "file.png"}], ids=str)
def test_wrong_keywords_of_stylize_are_refused(wrong: dict[str, object], place: Path) -> None:
    picture = Image.new("RGB", (60, 48))
    with pytest.raises(SettingsError):
        StyleTransfer(devices=["cpu"], weights="w.safetensors").stylize(picture, [picture], **wrong)


def test_the_error_of_a_callback_reaches_the_caller_and_the_picture_so_far_is_kept(place: Path) -> None:
    transfer = StyleTransfer(devices=["cpu"], weights="w.safetensors")

    def callback(iterate: Iterate) -> None:
        if iterate.step == 2:
            raise ZeroDivisionError("mine")

    picture = Image.open("c.png")
    about = {"min_scale": 32, "end_scale": 32, "initial_iterations": 4}
    with pytest.raises(ZeroDivisionError, match="mine"):
        transfer.stylize(picture, picture, callback=callback, **about)
    assert transfer.get_image().size == (32, 26)
    assert transfer.stylize(picture, picture, **about).size == (32, 26)


def closed(kind: str) -> Image.Image:
    """Return a picture that was closed before its pixels were read."""
    data = io.BytesIO()
    Image.new("RGB", (60, 48)).save(data, kind)
    image = Image.open(io.BytesIO(data.getvalue()))
    image.close()
    return image


PLAIN = Image.new("RGB", (60, 48))
WRONG: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    **{f"closed {kind}": lambda kind=kind: (closed(kind), PLAIN, {}) for kind in ("PNG", "TIFF", "GIF", "JPEG", "WEBP")},  # type: ignore[misc]
    "closed style": lambda: (PLAIN, [closed("PNG")], {}),
    "closed start": lambda: (PLAIN, PLAIN, {"init": closed("PNG")}),
    "no size": lambda: (Image.Image(), PLAIN, {}),
    "LAB": lambda: (PLAIN, Image.new("LAB", (60, 48)), {}),
    "above 1": lambda: (Image.new("F", (60, 48), 1.1), PLAIN, {}),
    "below 0": lambda: (PLAIN, Image.new("F", (60, 48), -0.1), {}),
    "above 65535": lambda: (Image.new("I", (60, 48), 65536), PLAIN, {}),
    "not finite": lambda: (Image.new("F", (60, 48), float("nan")), PLAIN, {}),
    "no content": lambda: (None, PLAIN, {}),
    "an array": lambda: (np.zeros((48, 60, 3)), PLAIN, {}),
    "no style": lambda: (PLAIN, None, {}),
    "a number": lambda: (PLAIN, 5, {}),
    "no styles": lambda: (PLAIN, [], {}),
    "names": lambda: (PLAIN, ["s.png"], {}),
    "init": lambda: (PLAIN, PLAIN, {"init": 3}),
    "callback": lambda: (PLAIN, PLAIN, {"callback": 3}),
    "fraction": lambda: (PLAIN, PLAIN, {"end_scale": 64.5}),
    "not a number": lambda: (PLAIN, PLAIN, {"end_scale": float("nan")}),
    "several": lambda: (PLAIN, PLAIN, {"iterations": np.array([1, 2])}),
    "nested": lambda: (PLAIN, PLAIN, {"style_weights": [[1]]}),
    "bytes": lambda: (PLAIN, PLAIN, {"tile": b"auto"}),
    "dictionary": lambda: (PLAIN, PLAIN, {"style_loss": {}}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_arguments_raise_errors_of_this_package(wrong: Callable[[], tuple[Any, Any, dict[str, Any]]], place: Path) -> None:
    content, style, more = wrong()
    with pytest.raises((ImageError, SettingsError)):
        StyleTransfer(devices="cpu", weights="w.safetensors").stylize(content, style, **SHORT | more)


def test_values_of_related_types_are_accepted(place: Path) -> None:
    transfer = StyleTransfer(devices=torch.device("cpu"), weights=Path("w.safetensors"))
    about = {"min_scale": np.float32(32), "end_scale": 40.0, "initial_iterations": np.int64(1), "iterations": 1}
    assert transfer.stylize(PLAIN, (PLAIN for _ in range(2)), **about).size == (40, 32)
    for wrong in (None, 3, "uint8"):
        with pytest.raises(SettingsError, match="np_uint16"):
            transfer.get_image(wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="--devices"):
        StyleTransfer(devices=5, weights="w.safetensors").stylize(PLAIN, PLAIN)  # type: ignore[arg-type]


def test_notes_are_warnings_of_the_caller_s_line(place: Path) -> None:
    transparent = Image.new("RGBA", (60, 48), (9, 9, 9, 128))
    with pytest.warns(UserWarning) as caught:
        StyleTransfer(devices="cpu", weights="w.safetensors").stylize(transparent, [PLAIN, transparent], **SHORT)
    found = [(str(each.message).partition(":")[0], Path(each.filename).name) for each in caught]
    assert found == [("the content", "test_api.py"), ("style 2", "test_api.py")]
    assert all("alpha" in str(each.message) for each in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StyleTransfer(devices="cpu", weights="w.safetensors").stylize(PLAIN, PLAIN, **SHORT)


@pytest.mark.parametrize("fails", [False, True])
def test_the_tensors_of_a_run_are_freed_at_its_end(fails: bool, place: Path) -> None:
    """Without the help of the garbage collector; the picture remains."""
    transfer, tensors = StyleTransfer(devices="cpu", weights="w.safetensors"), []

    def callback(iterate: Iterate) -> None:
        state = iterate.state()
        tensors.extend(weakref.ref(tensor) for tensor in (*state.tensors.values(), iterate.loss))
        assert transfer.get_image().size == (iterate.w, iterate.h)
        if fails and iterate.step == 2:
            raise ZeroDivisionError

    gc.collect()
    gc.disable()
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                transfer.stylize(PLAIN, PLAIN, callback=callback, **SHORT)
        else:
            transfer.stylize(PLAIN, PLAIN, callback=callback, **SHORT)
        assert tensors and not any(ref() is not None for ref in tensors)
    finally:
        gc.enable()
    assert transfer.get_image().size == ((33, 26) if fails else (46, 37)) == transfer.get_image_tensor().shape[:0:-1]
