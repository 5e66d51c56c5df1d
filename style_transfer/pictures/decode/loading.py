"""Loading of picture files and of their metadata; files are recognised by their first bytes, so that one decoder is started."""

from __future__ import annotations

import contextlib
import logging
import re
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ...errors import ImageError, StyleTransferError
from ...files import reason, shown, similar_name
from ...registry import INPUT_FORMATS
from ..develop import DecodedPicture
from ..picture import CHANNELS, Picture, Samples
from ..press import read_profile
from ..working import WorkingSpace

DEFAULT_MAX_PIXELS: Final = 500_000_000
RAW_CAMERA: Final = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srf"
    " .srw .x3f".split()
)
"""Suffixes of camera raw files, some of which look like TIFF; `tiff_pages` recognizes those with other suffixes."""
RAW_REFUSED: Final = "camera raw is not supported; develop it to a 16-bit TIFF first"

_TEXT: Final = rb"(?i)(?:\xef\xbb\xbf)?\s*"
UNSUPPORTED: Final[tuple[tuple[bytes, str], ...]] = (
    (_TEXT + rb"version https://git-lfs", "is a Git LFS pointer, not the picture itself; run 'git lfs pull'"),
    (_TEXT + rb"(?=<).*<svg", "looks like SVG; export it as PNG first"),
    (_TEXT + rb"<(?:!doctype html|html|head|body)", "looks like HTML, not the picture; download the picture itself"),
    (rb"%PDF", "looks like PDF; export the page as TIFF or PNG first"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "looks like EPS or PostScript; export it as TIFF or PNG first"),
    (rb"\xd7\xcd\xc6\x9a|.{40} EMF", "looks like a Windows metafile; export it as PNG first"),
    (rb"II(?:RO|RS|U\0|\x1a\0\0\0HEAPCCDR)|MMOR|\0MRM|FOVb|FUJIFILMCCD-RAW|.{4}ftypcrx", RAW_REFUSED),
    (rb".{4}ftyp", "looks like HEIC or a video; save it as JPEG, PNG or TIFF first"),
    (rb"8BPS", "looks like a Photoshop file; save it as TIFF first"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "looks like JPEG XL; convert it to PNG or TIFF first"),
    (rb"PK\x03\x04", "looks like a ZIP archive; unpack it first"),
)
"""Patterns of the first bytes of files of other kinds, each with the text of the message."""

PYTHON: Final = re.compile(r"<.*>|0x|\bb?'|\(\d+,|\b(?:array|buffer|bytes-like|dtype|NoneType|object)\b|\w_decode\b|\w=")
"""What only messages for programmers contain."""
UNKNOWN_KIND: Final = re.compile(r"(?i)^ \(unsupported|not supported|not a known|not implemented")
"""Messages of decoders for files that may be whole."""

_silent = logging.NullHandler()  # keeps the decoders' logs off the terminal unless the program configures logging


@dataclass(frozen=True)
class Scope:
    """What a decoder reads, in words for docs/what-is-read.md.

    `samples`: kinds and depths. `colour`: where a file says what its colours mean; without that they are sRGB. `orientation`:
    where it says how it is turned. `alpha`: how opacity is stored. `more`: sentences on unusual, damaged and refused files.
    """

    samples: str
    colour: str = "none"
    orientation: str = "none"
    alpha: str = "none"
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class InputFormat:
    """A format that is read, registered in `registry.INPUT_FORMATS` under its name.

    `pattern` matches the first bytes of its files; a format without a signature has None, and is recognised by `suffix`, such as
    ".tga". `decode` gets the file, its name for messages, and the largest number of pixels; it raises `ImageError` for a file
    that is not supported, and any exception for a damaged one. `metadata` gets the file, and returns the texts that `save`
    embedded in it; None if `save` does not write the format. `scope` is for the documents.
    """

    pattern: bytes | None
    decode: Callable[[BinaryIO, str, int], Samples]
    metadata: Callable[[BinaryIO, str], dict[str, str]] | None = None
    suffix: str | None = None
    scope: Scope | None = None


def load(
    path: str | Path, *, proof: str | Path | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, alpha: bool = False,
    space: WorkingSpace | None = None,
) -> Picture:  # fmt: skip
    """Read a picture file as float32 sRGB.

    Reads PNG, JPEG, TIFF, WebP, BMP, GIF, PPM/PGM/PBM, TGA, JPEG 2000 and AVIF, recognised by content and not by name (TGA,
    which has no signature, by name). Files are decoded at their own depth. Of several frames or pages the first is read.
    Embedded ICC profiles are applied, else what the file states in codes or numbers; colours outside sRGB are clipped. Alpha is
    ignored, and colours are used as stored, unless `alpha` requests it: then the picture has it, and colours that are stored
    multiplied by alpha are divided by it.

    `proof` is a CMYK ICC profile file: colours are converted to those that its printing condition reproduces (sRGB to CMYK
    relative colorimetric with black point compensation, and back relative colorimetric). `max_pixels` is the largest width x
    height accepted; sizes are checked in the header, before anything is decoded or allocated.

    With a working `space` the pixels have its values instead of sRGB's, and colours outside it are clipped.

    Raises `ImageError` for a file that cannot be used, `SettingsError` for a bad `proof`.
    """
    return open_picture(path, proof=proof, max_pixels=max_pixels, alpha=alpha, space=space).picture()


def open_picture(
    path: str | Path, *, proof: str | Path | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, alpha: bool = False,
    space: WorkingSpace | None = None,
) -> DecodedPicture:  # fmt: skip
    """Read a picture file as `load` does, but leave the samples as they are until rows are asked for.

    Raises `ImageError` and `SettingsError` as `load` does, or when rows are converted.
    """
    profile = None if proof is None else read_profile("--proof", proof)[0]
    name = shown(path)
    with _opened(Path(path), name) as (stream, kind):
        try:
            raw = INPUT_FORMATS[kind].decode(stream, name, max_pixels)
            raw.format = kind
            if 0 in raw.values.shape or raw.values.shape[2] < CHANNELS[raw.space]:
                raise ValueError("no pixels in it")
        except (StyleTransferError, MemoryError):
            raise
        except Exception as error:  # decoders raise any exception for damaged files
            raise _refusal(error, name, kind) from error
    return DecodedPicture(raw, name, profile, keep_alpha=alpha, space=space)


def _refusal(error: Exception, name: str, kind: str) -> ImageError:
    """Return the error for a file that a decoder refused."""
    cause = _cause(error)
    if UNKNOWN_KIND.search(cause):
        return ImageError(f"{name}: {kind} of a kind that is not supported{cause}; save it as PNG or TIFF")
    return ImageError(f"{name}: damaged or truncated {kind}{cause}; export it again")


def _cause(error: Exception) -> str:
    """Return a decoder's error in parentheses; empty for one that speaks of Python's objects instead of the file."""
    internal = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, UnicodeError, struct.error)
    text = reason(error)
    return "" if isinstance(error, internal) or PYTHON.search(text) else f" ({text})"


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the `metadata` that `save` embedded in a file; empty for a file without any.

    Raises `ImageError` for a file that is not a readable PNG, TIFF, JPEG or WebP.
    """
    name = shown(path)
    with _opened(Path(path), name) as (stream, kind):
        known: InputFormat = INPUT_FORMATS[kind]
        if known.metadata is None:
            raise ImageError(f"{name}: {kind} has no metadata of this program; give a PNG, TIFF, JPEG or WebP")
        try:
            return known.metadata(stream, name)
        except StyleTransferError:
            raise
        except Exception as error:  # decoders raise any exception for damaged files
            raise ImageError(f"{name}: its metadata cannot be read{_cause(error)}; the file may be damaged") from error


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[BinaryIO, str]]:
    """Open a picture file for reading; yield the file and the name of its format. Raises `ImageError`."""
    for library in ("tifffile", "imagecodecs"):
        logging.getLogger(library).addHandler(_silent)
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(info.st_mode):  # to open a pipe would wait for its other end
            raise ImageError(f"{name}: is not a regular file; save the picture to a file first")
        if info.st_size == 0:
            raise ImageError(f"{name}: is empty (0 bytes)")
        with path.open("rb") as stream:
            head = stream.read(4096)
            stream.seek(0)
            yield stream, recognize(head, path.suffix.lower(), name)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file{similar_name(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{name}: cannot be read: {reason(error)}") from error


def recognize(head: bytes, suffix: str, name: str) -> str:
    """Return the name of the format of a file with these first bytes.

    Raises `ImageError`, which reports the file's kind if it is one of `UNSUPPORTED`.
    """
    if suffix in RAW_CAMERA:
        raise ImageError(f"{name}: {RAW_REFUSED}")
    for kind, known in INPUT_FORMATS.items():
        if known.pattern is not None and re.match(known.pattern, head, re.DOTALL):
            return kind
    for pattern, problem in UNSUPPORTED:
        if re.match(pattern, head, re.DOTALL):
            raise ImageError(f"{name}: {problem}")
    for kind, known in INPUT_FORMATS.items():
        if known.suffix == suffix:
            return kind
    raise ImageError(f"{name}: is not a picture in a supported format; save it as PNG, TIFF or JPEG")


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise `ImageError` for a picture without pixels or with more than `max_pixels`."""
    if width <= 0 or height <= 0:
        raise ImageError(f"{name}: {width} x {height} pixels: the picture has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels is {width * height:,}, above the limit of {max_pixels:,}; "
            f"if you trust the file, raise the limit with --max-pixels {width * height}"
        )
