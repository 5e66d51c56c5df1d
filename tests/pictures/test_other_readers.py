"""What libvips, ImageMagick and ExifTool, where installed, read in files for print: size, resolution, profile, credits."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.picture_files import noise
from support.profiles import cmyk_profile

from style_transfer import pictures
from style_transfer.pictures.credits import Credits
from style_transfer.pictures.press import Press
from style_transfer.pictures.working import read_space

PRESS = Press(cmyk_profile(0.1), "cmyk", "test")
PIXELS = (noise(46, 66) / 65535).astype(np.float32)


@pytest.fixture(params=["rgb", "cmyk"])
def printed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a TIFF of 66x46 pixels at 300 dpi, in Display P3 or in CMYK."""
    path = tmp_path / f"{request.param}.tif"
    space = None if request.param == "cmyk" else read_space("--output-space", "display-p3")
    press = PRESS if request.param == "cmyk" else None
    pictures.save(path, PIXELS, dpi=300, press=press, space=space, credits=Credits("Ana Núñez", "T", copyright="© Ana"))
    return path


def run(*command: str | Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_libvips(printed: Path) -> None:
    fields = dict(line.split(": ", 1) for line in run("vipsheader", "-a", printed).splitlines()[1:] if ": " in line)
    assert (fields["width"], fields["height"], fields["format"]) == ("66", "46", "ushort")
    assert float(fields["xres"]) == pytest.approx(300 / 25.4, abs=1e-4) and fields["resolution-unit"] == "in"
    cmyk = printed.stem == "cmyk"
    assert (fields["bands"], fields["interpretation"]) == (("4", "cmyk") if cmyk else ("3", "rgb16"))
    size = len(PRESS.icc) if cmyk else len(read_space("--output-space", "display-p3").icc)  # type: ignore[union-attr]
    assert fields["icc-profile-data"].startswith(str(size))


def test_imagemagick(printed: Path) -> None:
    form = "%w %h %z %x %U %[colorspace] %[profile:icc]"
    words = run("identify", "-format", form, printed).split(maxsplit=6)
    cmyk = printed.stem == "cmyk"
    assert words == ["66", "46", "16", "300", "PixelsPerInch", "CMYK" if cmyk else "sRGB", "test" if cmyk else "Display P3"]


def test_exiftool(printed: Path) -> None:
    (found,) = json.loads(run("exiftool", "-json", "-n", printed))
    names = "ImageWidth", "ImageHeight", "XResolution", "YResolution", "ResolutionUnit", "BitsPerSample", "Artist", "Rights"
    cmyk = printed.stem == "cmyk"
    assert [found[name] for name in names] == [66, 46, 300, 300, 2, "16 16 16 16" if cmyk else "16 16 16", "Ana Núñez", "© Ana"]
    assert found["ProfileDescription"] == ("test" if cmyk else "Display P3")
    assert found["ColorSpaceData"].strip() == ("CMYK" if cmyk else "RGB") and "Warning" not in found
