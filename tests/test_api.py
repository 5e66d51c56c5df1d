"""`StyleTransfer`, as users of style-transfer-pytorch know it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from style_transfer import StyleTransfer
from style_transfer.engine.iterate import Iterate
from style_transfer.errors import DeviceError, SettingsError

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
