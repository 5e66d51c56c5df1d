"""Metadata: the EXIF orientation, and the texts that are embedded in files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import close, exif_of, noise, pil_bytes, png, put, stored_as
from support.profiles import P3_TO_D50, rgb_expected, rgb_profile

from style_transfer import pictures
from style_transfer.registry import OUTPUT_FORMATS


@pytest.mark.parametrize("suffix", [suffix for suffix, known in OUTPUT_FORMATS.items() if known.readable])
def test_metadata_comes_back(suffix: str, tmp_path: Path) -> None:
    metadata = {"Software": "naïve 1.0", "settings": '{"a": 1}', "style files": "ü\n日本.png", "empty": ""}
    pictures.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535, metadata=metadata)
    assert pictures.read_metadata(tmp_path / f"a{suffix}") == metadata
    pictures.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535)
    assert pictures.read_metadata(tmp_path / f"a{suffix}") == {}


def test_metadata_too_long_for_jpeg_does_not_stop_the_picture(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.jpg", noise(5, 6) / 65535, metadata={"Software": "s", "long": "x" * 70000})
    assert pictures.read_metadata(tmp_path / "a.jpg") == {"Software": "s"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(orientation: int, tmp_path: Path) -> None:
    upright = noise(3, 5, dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    stored = stored_as(upright, orientation)
    image = Image.fromarray(stored)
    exif = exif_of(orientation)
    path = put(tmp_path / "a.jpg", pil_bytes(image, "JPEG", quality=95, subsampling=0, exif=exif))
    close(pictures.load(path).pixels, upright / 255, 0.03)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        path = put(tmp_path / "a", pil_bytes(image, kind, exif=exif, **options))
        close(pictures.load(path).pixels, upright / 255, 1e-6)
    deep = stored.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    close(pictures.load(tmp_path / "a.tif").pixels, upright / 255, 1e-6)
    image.getexif()[0x0112] = orientation
    picture = pictures.from_pil(image)
    close(picture.pixels, upright / 255, 1e-6)
    assert picture.pixels.flags.c_contiguous and picture.notes == ()


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_impossible_orientation_is_a_note(orientation: int, tmp_path: Path) -> None:
    image = Image.fromarray(noise(6, 9, dtype=np.uint8))
    picture = pictures.load(put(tmp_path / "a.png", pil_bytes(image, "PNG", exif=exif_of(orientation))))
    close(picture.pixels, np.asarray(image) / 255, 1e-6)
    assert any(f"orientation {orientation}" in note for note in picture.notes)


def test_cut_exif_is_survived(tmp_path: Path) -> None:
    samples = noise(6, 9)
    for cut in (b"II*", b"garbage here", exif_of(6).tobytes()[6:16]):
        close(pictures.load(put(tmp_path / "a.png", png(samples, (b"eXIf", cut)))).pixels, samples / 65535, 1e-7)


def raw_profile(kind: str, data: bytes) -> bytes:
    """Return the text in which ImageMagick writes a profile into a PNG."""
    digits = "\n".join(data.hex()[at : at + 72] for at in range(0, 2 * len(data), 72))
    return f"\n{kind}\n{len(data):8d}\n{digits}\n".encode()


def text_chunk(kind: bytes, key: bytes, text: bytes) -> tuple[bytes, bytes]:
    before = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\1\0\0\0"}[kind]
    return kind, key + b"\0" + before + (text if kind == b"tEXt" else zlib.compress(text))


def xmp(orientation: int, form: str = 'tiff:Orientation="{}"') -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {form.format(orientation)}/></x:xmpmeta>'.encode()


@pytest.mark.parametrize(
    "chunks",
    [
        [text_chunk(b"zTXt", b"Raw profile type exif", raw_profile("exif", exif_of(6).tobytes()))],
        [text_chunk(b"tEXt", b"Raw profile type APP1", raw_profile("generic", exif_of(6).tobytes()))],
        [text_chunk(b"iTXt", b"Raw profile type exif", raw_profile("exif", exif_of(6).tobytes()))],
        [text_chunk(b"iTXt", b"XML:com.adobe.xmp", xmp(6))],
        [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6, "><tiff:Orientation>{}</tiff:Orientation"))],
        [text_chunk(b"zTXt", b"Raw profile type xmp", raw_profile("xmp", xmp(6)))],
        [text_chunk(b"iTXt", b"XML:com.adobe.xmp", xmp(3)), (b"eXIf", exif_of(6).tobytes()[6:])],
    ],
    ids=["zTXt", "tEXt", "iTXt", "xmp", "xmp element", "xmp profile", "exif wins"],
)
def test_orientations_in_texts_of_png(chunks: list[tuple[bytes, bytes]], tmp_path: Path) -> None:
    upright = noise(3, 5)
    picture = pictures.load(put(tmp_path / "a.png", png(stored_as(upright, 6), *chunks)))
    close(picture.pixels, upright / 65535, 1e-7)
    assert picture.notes == ()


def test_a_profile_in_a_text_of_png_counts(tmp_path: Path) -> None:
    samples = noise(3, 5)
    chunk = text_chunk(b"zTXt", b"Raw profile type icc", raw_profile("icc", rgb_profile(P3_TO_D50, 2.2)))
    close(pictures.load(put(tmp_path / "a.png", png(samples, chunk))).pixels, rgb_expected(samples / 65535, P3_TO_D50, 2.2), 1e-3)


@pytest.mark.parametrize("text", [b"", b"\nexif\n99\n00ff\n", b"\nexif\n  2\n00fg\n", b"\nexif\n2\n0\n"])
def test_damaged_texts_of_png_are_survived(text: bytes, tmp_path: Path) -> None:
    samples = noise(3, 5)
    for chunk in (text_chunk(b"tEXt", b"Raw profile type exif", text), (b"zTXt", b"Raw profile type exif\0\0" + text)):
        close(pictures.load(put(tmp_path / "a.png", png(samples, chunk))).pixels, samples / 65535, 1e-7)


def test_an_orientation_in_xmp_counts_without_one_in_exif(tmp_path: Path) -> None:
    upright = noise(24, 40, dtype=np.uint8)
    image = Image.fromarray(stored_as(upright, 6))
    packet = b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)
    data = pil_bytes(image, "JPEG", quality=100, subsampling=0)
    segment = b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet
    close(pictures.load(put(tmp_path / "a.jpg", data[:2] + segment + data[2:])).pixels, upright / 255, 0.02)
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(image), photometric="rgb", extratags=[(700, 1, len(xmp(6)), xmp(6), True)])
    close(pictures.load(tmp_path / "a.tif").pixels, upright / 255, 1e-6)
