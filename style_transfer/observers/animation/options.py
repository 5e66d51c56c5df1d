"""The command-line options of animations, and the formats that are supported."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import SettingsError, near_miss
from ...files import shown
from ...settings import check_not_empty, option, validate_fields

SUFFIXES: Final = (".mp4", ".webm", ".gif", ".webp")
CODECS: Final[dict[str, dict[str, dict[str, str]]]] = {
    ".mp4": {"libx264": {"crf": "16", "preset": "medium"}},
    ".webm": {
        "libvpx-vp9": {"crf": "10", "qmin": "10", "qmax": "10", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        "libvpx": {"crf": "6", "qmin": "6", "qmax": "8", "b": "20M", "deadline": "good", "cpu-used": "4"},
    },
}
"""The encoders of each video format in order of preference, with options for constant quality.

With their defaults, the VPx encoders spend most bits on every eighth frame, and all changes appear in these frames."""
ALTERNATIVE: Final = "pip install av, or choose a name that ends in .gif or .webp"
MAX_GIF_RATE: Final = 50.0
"""The most frames per second of a GIF: delays are in hundredths of a second, and viewers replace those below two by ten."""


@dataclass(frozen=True, kw_only=True)
class AnimationOptions:
    """The command-line options of animations."""

    animation: str | None = option(None, "write an animation of the run, paced evenly by visible change, as .mp4, .webm, .gif or "
        ".webp; for several pictures a pattern such as {content}.mp4, also with {style} {output}", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    animation_seconds: float = option(10.0, "length of the animation in seconds, including a pause on the last picture",
        kind=float, minimum=0.1, maximum=600.0, metavar="SECONDS")  # fmt: skip
    animation_rate: float | None = option(None, "frames per second (if not given, 30, or 15 for .gif and .webp)", kind=float,
        minimum=1.0, maximum=60.0)  # fmt: skip
    animation_size: int | None = option(None, "long side of the animation in pixels, at most that of the result (if not given, "
        "960, or 480 for .gif and .webp)", kind=int, minimum=16, maximum=4096, metavar="PIXELS")  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)


def check_format(flag: str, path: str | Path, rate: float | None = None) -> str:
    """Return the suffix of a path in lower case. Raises `SettingsError` if its format, or that with `rate`, is not supported."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise SettingsError(f"{flag} {shown(path)}: must end in {', '.join(SUFFIXES)}{near_miss(suffix, SUFFIXES)}")
    if suffix in CODECS:
        if importlib.util.find_spec("av") is None:
            raise SettingsError(f"{flag} {shown(path)} needs PyAV, which is not installed; {ALTERNATIVE}")
        find_codec(flag, suffix)
    elif suffix == ".gif" and rate is not None and rate > MAX_GIF_RATE:
        raise SettingsError(f"{flag} {shown(path)}: a GIF has at most {MAX_GIF_RATE:g} frames per second, not {rate:g}")
    return suffix


def find_codec(flag: str, suffix: str) -> str:
    """Return the name of the best encoder for a video format. Raises `SettingsError` if PyAV has none."""
    try:
        import av  # an optional dependency
    except ImportError as error:
        raise SettingsError(f"{flag}: PyAV cannot be loaded ({error}); {ALTERNATIVE}") from None
    for name in CODECS[suffix]:
        try:
            av.Codec(name, "w")
        except (ValueError, LookupError):
            continue
        return name
    raise SettingsError(f"{flag}: PyAV has none of the encoders {', '.join(CODECS[suffix])}; {ALTERNATIVE}")
