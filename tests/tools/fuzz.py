"""Feed damaged files to everything that parses: each must be read or refused with one of our errors, in bounded time and memory.

    python tests/tools/fuzz.py TARGET SECONDS [SEED]     random damage to good files, without any other tool
    python tests/tools/fuzz.py TARGET --atheris [...]    guided by coverage, if atheris is installed; further words go to it

TARGET is one of `TARGETS`, or "picture:" and one of `PICTURES`, for one of its kinds of files. A file that breaks something is
left as crash-TARGET in the working folder, for tests/corpus, whose files TARGET-NAME are tried again by the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import io
import math
import random
import re
import shutil
import socket
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

if "--atheris" in sys.argv:
    import atheris

    INSTRUMENTED = ["tifffile", "tomllib", "aiohttp.web", "style_transfer.cli", "style_transfer.engine.checkpoint_file",
                    "style_transfer.networks.weights", "style_transfer.observers.web"]  # fmt: skip
    with atheris.instrument_imports(include=sorted({name.split(".")[0] for name in INSTRUMENTED})):
        for name in INSTRUMENTED:
            importlib.import_module(name)

sys.path.insert(0, str(Path(__file__).parents[1]))

import imagecodecs
import numpy as np
import torch
from safetensors.torch import save as save_tensors
from support import formats, tiny
from support.avif_files import with_property
from support.coloured_files import bmp, exif_bytes, tiff_with_exif
from support.live_page import Page, ask
from support.picture_files import iccp, pil_bytes, png
from support.profiles import ADOBE_TO_D50, rgb_profile
from support.tiff_files import page as tiff_page
from support.tiff_files import tiff

from style_transfer import pictures as images
from style_transfer.cli.parser import option_classes, parse
from style_transfer.compute.distributed import LOCAL
from style_transfer.engine import checkpoint_file
from style_transfer.engine.state import State
from style_transfer.errors import StyleTransferError
from style_transfer.evaluation.sweep import UNLIMITED
from style_transfer.networks import weights
from style_transfer.pictures import Array
from style_transfer.registry import OUTPUT_FORMATS
from style_transfer.settings import sources

MAX_SECONDS = 10.0
MAX_BYTES = 200_000_000
MAX_PIXELS = 1_000_000
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def read_picture(data: bytes, suffix: str) -> None:
    path = FOLDER / f"x{suffix}"
    path.write_bytes(data)
    images.load(path, max_pixels=MAX_PIXELS, alpha=len(data) % 2 == 0)


def read_metadata(data: bytes, suffix: str) -> None:
    path = FOLDER / f"m{suffix}"
    path.write_bytes(data)
    images.read_metadata(path)


def read_weights(data: bytes, suffix: str) -> None:
    path = FOLDER / f"w{suffix}"
    path.write_bytes(data)
    weights.check(weights.read(path), tiny.TINY, "x")


def read_checkpoint(data: bytes, suffix: str) -> None:
    path = FOLDER / "c"
    path.write_bytes(data)
    checkpoint_file.load(path)


def read_config(data: bytes, suffix: str) -> None:
    path = FOLDER / "o.toml"
    path.write_bytes(data)
    sources.from_file(sources.known_options(option_classes()), str(path))


@functools.cache
def page() -> Page:
    """Return a live page that is served as long as this process lasts."""
    observer = Page().open()
    atexit.register(observer.close)
    return observer


def read_request(data: bytes, suffix: str) -> None:
    """Send the live page what may be a request; it must not fail, and must still answer a good one."""
    with socket.create_connection(("127.0.0.1", page().port), timeout=5) as connection, contextlib.suppress(OSError):
        connection.sendall(data.replace(b"PORT", str(page().port).encode()))
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.5)  # events go on for ever
        with contextlib.suppress(TimeoutError):
            answer = connection.recv(1 << 16)
            assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(b"HTTP/1.1 503"), answer[:200]
    status = ask(page().server, "/state.json")[0]
    assert status == 200, status


Sample = tuple[bytes, str]


def pictures() -> list[Sample]:
    """Return good files of every kind that is read."""
    return [sample for samples in PICTURES.values() for sample in samples()]


def written_pictures() -> list[Sample]:
    """Return files of this program and of Pillow."""
    pixels = np.random.default_rng(0).random((40, 30, 3), np.float32)
    found = []
    for suffix in (name for name, known in OUTPUT_FORMATS.items() if known.readable):
        path = FOLDER / f"good{suffix}"
        images.save(path, pixels, metadata={"Software": "x", "Recipe": "{}"})
        found.append((path.read_bytes(), suffix))
    for kind in ("PNG", "GIF", "BMP", "PPM", "TGA", "JPEG2000", "TIFF", "AVIF"):
        found.append((pil_bytes(images.to_pil(pixels), kind), ".tga" if kind == "TGA" else ".png"))
    return [*found, (pil_bytes(images.to_pil(pixels).convert("CMYK"), "TIFF", compression="tiff_lzw"), ".tif")]


def shades() -> Array:
    """Return 16-bit samples of 16 x 16 colours."""
    return np.arange(768, dtype=np.uint16).reshape(16, 16, 3)


def png_with_codes() -> list[Sample]:
    """Return PNGs with codes (cICP), of full and of narrow range, and with numbers for their colours."""
    numbers = b"cHRM", struct.pack(">8I", 31270, 32900, 66000, 32000, 25000, 65000, 15000, 5000)
    chunks = [[(b"cICP", bytes([9, transfer, 0, full]))] for transfer, full in ((16, 1), (18, 0))]
    return [(png(shades(), *each), ".png") for each in (*chunks, [numbers, (b"gAMA", struct.pack(">I", 55556))])]


def avif_with_codes() -> list[Sample]:
    """Return AVIFs with codes (nclx), of 8 and 10 bits, one of them with a crop."""
    found = []
    for bits, samples in ((8, shades().astype(np.uint8)), (10, shades())):
        data = bytes(imagecodecs.avif_encode(samples, level=90, bitspersample=bits))
        at = data.index(b"colrnclx") + 8
        found.append(data[:at] + struct.pack(">HH", 9, 18) + data[at + 4 :])
    found.append(with_property(found[1], b"clap", struct.pack(">IIIIiIiI", 9, 1, 8, 1, -3, 2, 1, 1)))
    return [(data, ".avif") for data in found]


def exif_pictures() -> list[Sample]:
    """Return files whose EXIF has a colour space and an interoperability index."""
    found = [(tiff_with_exif(65535, "R03"), ".tif"), (png(shades(), (b"eXIf", exif_bytes(65535, "R03")[6:])), ".png")]
    image = images.to_pil(shades() / np.float32(767))
    return [*found, *((pil_bytes(image, kind, exif=exif_bytes(65535, "R03")), f".{kind.lower()}") for kind in ("JPEG", "WEBP"))]


def tiffs_with_directories() -> list[Sample]:
    """Return TIFFs with the directories that tell a camera raw: below a page, behind it, of reduced size."""
    strip = bytes(768)
    small, whole = tiff_page(16, 16, 3, 2, t254=("I", [1])), tiff_page(16, 16, 3, 2)
    raw = tiff_page(16, 16, 1, 2, t254=("I", [4]), t50707=("B", [1, 4, 0, 0]), t330=("I", [8, 90]))
    return [
        (tiff((small, strip), (whole, strip), inner=[(raw, strip), (small, strip)]), ".tif"),
        (tiff((whole, strip), (small, strip), (raw, strip)), ".tif"),
    ]


def sized_pictures() -> list[Sample]:
    """Return GIFs and JPEG 2000 files, whose sizes are read before their decoders allocate."""
    image = images.to_pil(shades() / np.float32(767))
    found = [(pil_bytes(image, "GIF", comment=b"so small", transparency=3, disposal=2), ".gif")]
    found += [(pil_bytes(image, "GIF", save_all=True, append_images=[image.rotate(90)]), ".gif")]
    found += [(pil_bytes(image, "JPEG2000", no_jp2=plain, irreversible=True), ".jp2") for plain in (False, True)]
    found += [(pil_bytes(image, "JPEG2000", tile_size=(8, 8)), ".jp2"), (pil_bytes(image.convert("LA"), "JPEG2000"), ".jp2")]
    return [*found, (bytes(imagecodecs.jpeg2k_encode(shades(), level=0, bitspersample=16)), ".jp2")]


def coloured_pictures() -> list[Sample]:
    """Return small files with profiles, and with numbers for their colours."""
    gamma = [round(1.8 * 2**16)] * 3
    ends = [round(v * 2**30) for v in (0.66, 0.32, 0.02, 0.25, 0.65, 0.1, 0.15, 0.05, 0.8)]
    profile = rgb_profile(ADOBE_TO_D50, 2.2)
    found = [(bmp(b"DEBM", more=profile), ".bmp"), (bmp(bytes(4), struct.pack("<9i3I", *ends, *gamma)), ".bmp")]
    return [*found, (png(shades(), iccp(profile)), ".png")]


def rare_pictures() -> list[Sample]:
    """Return small files of kinds that have a parser of their own."""
    found = [(imagecodecs.jpeg8_encode(shades(), lossless=lossless, bitspersample=12), ".jpg") for lossless in (False, True)]
    strip = bytes(768)
    ycbcr = tiff_page(16, 16, 3, 6, t530=("H", [2, 2]), t532=("rational", [(0, 1), (255, 1)] * 3))
    found += [(tiff((tiff_page(16, 16, 3, photometric), strip)), ".tif") for photometric in (8, 9)]
    found += [
        (tiff((tiff_page(16, 16, 3, 2), strip), inner=[(tiff_page(16, 16, 1, 1), strip)]), ".tif"),
        (tiff((ycbcr, strip)), ".tif"),
    ]
    found += [(b"P3 4 2 65535 # text\n" + b"1 22 333 # x\n" * 8, ".ppm"), (b"PF 4 2\n-1.0\n" + bytes(96), ".pfm")]
    header = struct.pack("<IiiHHI5I3I", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0, 0xF00, 0xF0, 0xF)
    found += [(b"BM" + struct.pack("<3I", 98, 0, 66) + header + bytes(32), ".bmp")]
    exif = b"\nexif\n 8\n" + b"Exif\0\0II".hex().encode()
    texts = [(b"tEXt", b"Raw profile type exif\0" + exif), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation='6'")]
    return [*((bytes(data), suffix) for data, suffix in found), (png(shades(), *texts), ".png")]


def weight_files() -> list[Sample]:
    state = {key: value.float() for key, value in tiny.tiny_weights().items()}
    stream = io.BytesIO()
    torch.save(state, stream)
    found = [(save_tensors(state), ".safetensors"), (stream.getvalue(), ".pth")]
    for name, old in (("new.caffemodel", False), ("old.caffemodel", True), ("w.npz", False)):
        path = formats.write(FOLDER / name, tiny.TINY, state, old)
        found.append((path.read_bytes(), path.suffix))
    return found


def checkpoints() -> list[Sample]:
    identity = {
        "settings": {"init": "content"},
        "content": "x",
        "styles": ["y"],
        "init": None,
        "regions": [],
        "network": "n",
        "weights": "",
    }
    tensors = {name: torch.rand(1, 3, 8, 9) for name in ("image", "average", "first", "second")}
    state = State(
        index=0, step=1, size=(8, 9), tensors=tensors, numbers={"missing": 0.5, "steps": 1}, halvings=0, seconds=1.0,
        limits=UNLIMITED, identity=identity, made={}, bands=((0, 8),),
    ).whole(LOCAL)  # fmt: skip
    checkpoint_file.save(FOLDER / "good", state)
    return [((FOLDER / "good").read_bytes(), "")]


def configs() -> list[Sample]:
    return [(parse(["--dump-config", "--grid"]).dump().encode(), ""), (b'end_scale = 64\nstyle-layers = ["relu1_1"]\n', "")]


def requests() -> list[Sample]:
    cookie = f"Cookie: {page().server.guard.cookie}={page().server.guard.token}\r\n"
    found = []
    for line, more in (
        ("GET /?token=x HTTP/1.1", ""),
        ("GET /state.json HTTP/1.1", cookie),
        ("GET /tile/content/0/0/0 HTTP/1.1", cookie),
        ("GET /image.png HTTP/1.1", cookie + "Range: bytes=0-9\r\n"),
        ("POST /finish-scale HTTP/1.1", cookie + "Origin: http://127.0.0.1:PORT\r\nContent-Length: 3\r\n"),
        ("POST /finish-scale HTTP/1.1", cookie + "Transfer-Encoding: chunked\r\n"),
    ):
        found.append((f"{line}\r\nHost: 127.0.0.1:PORT\r\n{more}\r\n3\r\nabc\r\n0\r\n\r\n".encode(), ""))
    return found


PICTURES: dict[str, Callable[[], list[Sample]]] = {
    "written": written_pictures,
    "rare": rare_pictures,
    "coloured": coloured_pictures,
    "cicp": png_with_codes,
    "nclx": avif_with_codes,
    "exif": exif_pictures,
    "directories": tiffs_with_directories,
    "sizes": sized_pictures,
}
"""The kinds of pictures, by the parser that they are for."""

TARGETS: dict[str, tuple[Callable[[bytes, str], None], Callable[[], list[Sample]]]] = {
    "picture": (read_picture, pictures),
    "metadata": (read_metadata, lambda: written_pictures()[:6]),
    "weights": (read_weights, weight_files),
    "checkpoint": (read_checkpoint, checkpoints),
    "config": (read_config, configs),
    "request": (read_request, requests),
}

WORDS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"[" * 64,
    b"-1",
    b"1e999",
    b"null",
    b'"',
]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four damages, most of them near its start, where headers are."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = min(len(found) - 1, int(chance.expovariate(1 / 200))) if chance.random() < 0.7 else chance.randrange(len(found))
        kind = chance.randrange(6)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at] = chance.randrange(256)
        elif kind == 2:
            word = chance.choice(WORDS)
            found[at : at + len(word)] = word
        elif kind == 3:
            del found[max(1, at) :]
        elif kind == 4:
            del found[at : at + chance.randint(1, 9)]
        else:
            found[at:at] = found[at : at + chance.randint(1, 99)]
        if not found:
            found = bytearray(b"\0")
    return bytes(found)


def parts_of(target: str) -> tuple[Callable[[bytes, str], None], Callable[[], list[Sample]]]:
    """Return the function that reads, and that which returns good files, of a target or of one of its kinds."""
    name, _, kind = target.partition(":")
    read, samples = TARGETS[name]
    return read, PICTURES[kind] if kind else samples


def attempt(target: str, data: bytes, suffix: str) -> None:
    """Read a file; raise AssertionError if that takes too much, and let pass whatever is not ours."""
    read, _ = parts_of(target)
    began = time.process_time()
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    try:
        read(data, suffix)
    except StyleTransferError as error:
        assert "\n" not in str(error), f"not one line: {error!r}"
        assert not re.search(r"<[\w.]+ |object at 0x|NoneType", str(error)), f"speaks of Python: {error!r}"
    took = time.process_time() - began
    assert took < MAX_SECONDS, f"took {took:.1f} s"
    if tracemalloc.is_tracing():
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES, "took too much memory"


def fuzz(target: str, seconds: float = math.inf, seed: int = 0, files: int = sys.maxsize) -> int:
    """Damage good files at random, so many of them or for some time; return how many were tried."""
    chance = random.Random(seed)
    read, make = parts_of(target)
    samples = make()
    for data, suffix in samples:
        read(data, suffix)  # they are good
    tried, deadline = 0, time.monotonic() + seconds
    tracemalloc.start()
    try:
        while tried < files and time.monotonic() < deadline:
            data, suffix = chance.choice(samples)
            bad = damaged(data, chance)
            try:
                attempt(target, bad, suffix)
            except BaseException:
                Path(f"crash-{target.partition(':')[0]}{suffix}").write_bytes(bad)
                raise
            tried += 1
    finally:
        tracemalloc.stop()
    return tried


def guided(target: str, arguments: list[str]) -> None:
    samples = parts_of(target)[1]()
    suffixes = sorted({suffix for _, suffix in samples})
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, (data, suffix) in enumerate(samples):
        (corpus / str(number)).write_bytes(bytes([suffixes.index(suffix)]) + data)

    def one(data: bytes) -> None:
        if data:
            attempt(target, data[1:], suffixes[data[0] % len(suffixes)])

    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if rest[:1] == ["--atheris"]:
        guided(name, rest[1:])
    else:
        print(f"{fuzz(name, float(rest[0]), int(rest[1]) if len(rest) > 1 else 0)} files")
