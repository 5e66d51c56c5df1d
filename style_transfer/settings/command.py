"""What a command decides beside the picture: files, messages, checkpoints."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from ..errors import SettingsError
from .option import check_not_empty, flag_name, option, validate_fields
from .paper import BLEEDS, PRINT_FITS, PrintSize, parse_length, parse_print_size

FILE: Final[dict[str, Any]] = {"metavar": "FILE", "check": check_not_empty}
FILES: Final[dict[str, Any]] = FILE | {"many": True}

SCREEN_DPI: Final = 72.0
"""The default of --dpi; a higher resolution is for print."""
RENDERINGS: Final = {
    "perceptual": "compress colours so that differences remain",
    "relative": "keep colours that can be printed, relative to the paper's white",
    "saturation": "keep colours vivid",
    "absolute": "keep colours that can be printed, paper's white included",
}
"""The rendering intents of ICC profiles, each with a phrase that explains it."""
RGB_SPACES: Final = {
    "srgb": "what every program and browser expects",
    "display-p3": "colours of today's screens and cameras",
    "adobe-rgb": "colours of photo printers",
    "prophoto": "all colours of surfaces; the network sees it paler than it is",
}
"""RGB spaces that pictures are painted in, each with a phrase that explains it."""
PRINT_DPI: Final = 300.0
"""The default of --dpi with --print-size."""
LENGTH: Final[dict[str, Any]] = {"topic": "print", "metavar": "LENGTH", "check": parse_length}


def _check_shard(name: str, value: str) -> None:
    part, separator, whole = value.partition("/")
    if not (separator and part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
        raise SettingsError(f"{name} must be I/N with I from 1 to N, such as 3/8, not {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """The options of the command line that belong neither to `Settings` nor to an observer."""

    output: str | None = option(None, "write the result to this file; .tif .tiff .png have 16 bits per channel, .jpg .jpeg "
        ".webp .pdf 8; several results go to a folder or a pattern such as {content}_{style}.tif", topic="files", short="-o",
        default_help="out.png, or the folder out", **FILE)  # fmt: skip
    each: tuple[str, ...] | None = option(None, "process each of these pictures or folders; all other pictures are "
        "styles", topic="files", many=True, metavar="CONTENT")  # fmt: skip
    grid: bool = option(False, "process each content with each style alone", topic="files", flag=True)
    shard: str | None = option(None, "process only every Nth of several pictures, from the Ith on, such as 3/8", topic="files",
        metavar="I/N", check=_check_shard)  # fmt: skip
    keep_metadata: bool = option(False, "write author, title, description, copyright and date of the content into the result",
        topic="files", flag=True)  # fmt: skip
    keep_place: bool = option(False, "with --keep-metadata, write also where the content was taken", topic="files", flag=True)
    overwrite: bool = option(False, "with several results, overwrite existing ones", topic="files", flag=True)
    contact_sheet: str | None = option(None, "write a labelled overview of all results to this file", topic="files",
        **FILE)  # fmt: skip
    save_every: int = option(50, "write the picture every N steps; 0 writes it only after each scale", topic="files", kind=int,
        minimum=0)  # fmt: skip
    save_iterates: str | None = option(None, "keep each written picture under a numbered name, such as frames/{number}.png; "
        "fields: {number} {iteration} {scale} {step} {content} {style}", topic="files", metavar="PATTERN",
        check=check_not_empty)  # fmt: skip
    checkpoint: str | None = option(None, "write checkpoints to this file, or to none if it is off; they are removed when the "
        "run is complete", topic="files", default_help="OUTPUT.checkpoint", **FILE)  # fmt: skip
    checkpoint_every: float = option(60.0, "write a checkpoint at intervals, less often where that takes over 2 % of "
        "the time; 0 writes one only after each scale", topic="files", kind=float, minimum=0.0, maximum=1e9,
        metavar="SECONDS")  # fmt: skip
    resume: bool = option(False, "continue an interrupted run with the same pictures and options", topic="files",
        flag=True)  # fmt: skip
    keep_checkpoint: bool = option(False, "keep the checkpoint of a complete run", topic="files", flag=True)
    max_pixels: int = option(500_000_000, "refuse larger input pictures", topic="files", kind=int, minimum=1)
    config: str | None = option(None, "read options from this TOML file, or those that a picture of this program was made "
        "with; variables STYLE_TRANSFER_... override it, and flags override both", topic="files", **FILE)  # fmt: skip
    dump_config: bool = option(False, "print such a file with the chosen options, and exit", topic="files", flag=True)

    proof: str | None = option(None, "soft-proof the input pictures with this CMYK ICC profile", topic="colour", metavar="FILE")
    content_mask: tuple[str, ...] | None = option(None, "apply each style, or each part of one style, where these masks of the "
        "content are white; or where a single mask has a colour", topic="masks", **FILES)  # fmt: skip
    style_mask: tuple[str, ...] | None = option(None, "use only these parts of the styles, one mask for each content mask, or "
        "masks in the same colours", topic="masks", default_help="all of each style", **FILES)  # fmt: skip
    print_size: str | None = option(None, "paint a print of this width and height, such as 60x40cm or 24x16in, or of a paper "
        "format, such as A3, letter or A2-landscape; its long side is the last scale", topic="print", metavar="SIZE",
        check=parse_print_size)  # fmt: skip
    dpi: float | None = option(None, "write this resolution into the result, in dots per inch; with --print-size it decides how "
        "many pixels are painted", topic="print", kind=float, minimum=0.1, maximum=65535.0,
        default_help=f"{SCREEN_DPI:g}, or {PRINT_DPI:g} with --print-size")  # fmt: skip
    print_fit: str = option("crop", "fit a photograph of another shape than the print's in this way", topic="print",
        words=PRINT_FITS)  # fmt: skip
    bleed: str | None = option(None, "paint so much beyond each side of the print, such as 3mm, to be trimmed off", **LENGTH)
    bleed_from: str = option("mirror", "paint this in the bleed", topic="print", words=BLEEDS)
    crop_marks: bool = option(False, "mark the corners of the trimmed print in a .pdf", topic="print", flag=True)
    style_print_size: str | None = option(None, "compare with styles whose long side is so long in the print, such as 40cm, so "
        "that strokes have the same size at any resolution", **LENGTH)  # fmt: skip
    sharpen: float = option(0.0, "sharpen the lightness of the result by this amount, for ink that spreads; 1 is usual",
        topic="print", kind=float, minimum=0.0, maximum=10.0)  # fmt: skip
    sharpen_radius: str = option("0.13mm", "sharpen with this radius in the print (standard deviation)", **LENGTH)
    output_space: str = option("srgb", "read, paint and write pictures in this RGB space, or in that of an ICC profile",
        topic="print", words=RGB_SPACES, open_words=True, metavar="FILE", check=check_not_empty)  # fmt: skip
    output_profile: str | None = option(None, "convert the result to the colours of this ICC profile, of a press (CMYK, in .tif "
        "and .pdf) or of a printer (RGB)", topic="print", metavar="FILE", check=check_not_empty)  # fmt: skip
    proof_output: str | None = option(None, "write how the result looks in the print of this ICC profile to OUTPUT.proof.png, "
        "which colours it lacks to OUTPUT.gamut.png, and how many to OUTPUT.json", topic="print", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    intent: str = option("relative", "convert to --output-profile with this rendering intent", topic="print", words=RENDERINGS)
    black_point: bool = option(True, "map black to the darkest colour of --output-profile (black point compensation)",
        topic="print", flag=True)  # fmt: skip
    ink_limit: float | None = option(None, "reduce cyan, magenta and yellow where all four inks of --output-profile sum to more, "
        "such as 300", topic="print", default_help="as the profile has it", kind=float, minimum=100.0, maximum=400.0,
        metavar="PERCENT")  # fmt: skip
    lossless: bool = option(False, "write .webp without loss and with colour at full resolution; .tif and .png always are",
        topic="files", flag=True)  # fmt: skip
    dry_run: bool = option(False, "print scales, tiles, memory, disk space and time, and exit", topic="size", flag=True)
    quiet: bool = option(False, "print only errors and the path of the result", topic="watching", flag=True)
    verbose: bool = option(False, "print how each input picture was understood: format, bits, profile, orientation, alpha",
        topic="watching", flag=True)  # fmt: skip
    json: bool = option(False, "print one JSON line for each step, with each term of the loss", topic="watching", flag=True)

    def __post_init__(self) -> None:
        validate_fields(self)
        if self.paper is None:
            for name in ("bleed", "style_print_size"):
                if getattr(self, name) is not None:
                    raise SettingsError(f"{flag_name(name)} {getattr(self, name)} goes with --print-size")
        elif self.bleed_length > min(self.paper.width, self.paper.height) / 4:
            raise SettingsError(
                f"--bleed {self.bleed} must be at most a quarter of the short side of {self.print_size}; 3mm is usual"
            )
        if self.keep_place and not self.keep_metadata:
            raise SettingsError("--keep-place goes with --keep-metadata")
        if self.ink_limit is not None and self.output_profile is None and self.proof_output is None:
            raise SettingsError(f"--ink-limit {self.ink_limit:g} goes with --output-profile or --proof-output")

    @property
    def resolution(self) -> float:
        """The resolution of the result in pixels per inch."""
        return self.dpi if self.dpi is not None else SCREEN_DPI if self.print_size is None else PRINT_DPI

    @property
    def paper(self) -> PrintSize | None:
        """The size of the print, if the command asks for one."""
        return None if self.print_size is None else parse_print_size("--print-size", self.print_size)

    @property
    def bleed_length(self) -> float:
        """The bleed in millimetres."""
        return 0.0 if self.bleed is None else parse_length("--bleed", self.bleed)
