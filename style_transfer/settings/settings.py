"""Settings: everything that decides what the picture looks like, as one frozen dataclass.

Defaults, help, choices and checks stand here once; the parser, the metadata written into pictures and the
README's table of options are made from them. The default values are those of style-transfer-pytorch, but for
pooling, which is `average`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import SettingsError, near_miss
from . import catalog
from .presets import PRESETS

T = TypeVar("T")

INITS = ("content", "gray", "uniform", "normal", "style_mean", "style_stats", "style", "noise", "network_mean")
STYLE_LOSSES = ("gram", "wasserstein", "covariance", "shifted-gram", "mean-std", "histogram")
ERRORS = ("scaled", "mean", "sum", "relative")
COLORS = ("style", "content", "luminance", "match-style", "match-content")
COLOR_SPACES = ("oklab", "lab", "luv", "yuv", "rgb")
MAX_SCALE = 1_000_000
MAX_WEIGHT = 1e9
END_SCALE = re.compile(r"([0-9]{1,7})(\+?)")


@dataclasses.dataclass(frozen=True)
class Option:
    """What is said and checked about one setting.

    `short` is its one-letter form; `kind` turns a word of the command line into a value; numbers must be finite
    and lie in [`minimum`, `maximum`], or above `above`, or below `below`; `or_word` is a word that may stand for a number;
    `many` takes several words and gives a tuple; `words` are the names a value may have; `check` raises `SettingsError` for
    whatever else may be wrong.
    """

    help: str
    short: str | None = None
    kind: Callable[[str], Any] = str
    words: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    many: bool = False
    metavar: str | None = None
    check: Callable[[str, Any], None] | None = None
    flag: bool = False
    optional_word: bool = False
    or_word: str | None = None

    def from_word(self, word: str) -> Any:
        """Return the value that a word of the command line stands for. Raises ValueError."""
        return word if word == self.or_word else self.kind(word)

    def validate(self, name: str, value: Any) -> Any:
        """Return `value` in its canonical type, or raise `SettingsError` naming `name`, the value and the way out."""
        if value is None:
            return None
        if self.flag:
            if not isinstance(value, bool):
                raise SettingsError(f"{name} is on or off: True or False, not {value!r}")
            return value
        if self.many:
            if isinstance(value, str | numbers.Number) or not isinstance(value, Iterable):
                value = (value,)
            found = tuple(self._one(name, item) for item in value)
            if not found:
                raise SettingsError(f"{name} needs at least one value")
            return found
        return self._one(name, value)

    def _one(self, name: str, value: Any) -> Any:
        if self.or_word is not None and isinstance(value, str):
            if value != self.or_word:
                raise SettingsError(f"{name} must be a number or {self.or_word}, not {value!r}")
        elif self.kind in (int, float):
            value = self._number(name, value)
        elif self.kind is str and not isinstance(value, str):
            raise SettingsError(f"{name} must be text, not {value!r}")
        if self.words and value not in self.words:
            raise SettingsError(f"{name} {value!r} is not one of {', '.join(self.words)}{near_miss(str(value), self.words)}")
        if self.check is not None:
            self.check(name, value)
        return value

    def _number(self, name: str, given: Any) -> float:
        whole = self.kind is int
        if isinstance(given, bool) or not isinstance(given, numbers.Real):  # NumPy's numbers are
            raise SettingsError(f"{name} must be a number, not {given!r}")
        value = int(given) if isinstance(given, numbers.Integral) else float(given)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise SettingsError(f"{name} is a number of more than 18 digits")
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name} must be finite, not {value}")
        if whole and value != int(value):
            raise SettingsError(f"{name} must be a whole number, not {value!r}")
        bounds = [
            (self.minimum is None or value >= self.minimum, f"at least {self.minimum}"),
            (self.above is None or value > self.above, f"above {self.above}"),
            (self.maximum is None or value <= self.maximum, f"at most {self.maximum}"),
            (self.below is None or value < self.below, f"below {self.below}"),
        ]
        for holds, words in bounds:
            if not holds:
                raise SettingsError(f"{name} must be {words}, not {value}")
        return int(value) if whole else float(value)


def option(default: Any, help: str, **about: Any) -> Any:
    """Return a dataclass field with `default` and an `Option` made of the rest."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **about)})


def options_of(cls: type) -> dict[str, tuple[Any, Option]]:
    """Return each field's name, default and `Option`, in the order they are declared."""
    return {f.name: (f.default, f.metadata["option"]) for f in dataclasses.fields(cls)}


def flag_name(name: str) -> str:
    """Return the command-line flag of a setting, `--end-scale` for `end_scale`."""
    return "--" + name.replace("_", "-")


def validate_fields(obj: Any) -> None:
    """Check every field of a frozen dataclass of options and put the canonical values in place."""
    for name, (default, about) in options_of(type(obj)).items():
        value = getattr(obj, name)
        if value is None and default is not None:
            raise SettingsError(f"{flag_name(name)} needs a value")
        object.__setattr__(obj, name, about.validate(flag_name(name), value))


def scale_word(word: Any) -> str:
    """Return an end scale as text: digits, with `+` for the safe size."""
    return str(word)


def _check_end_scale(name: str, value: str) -> None:
    match = END_SCALE.fullmatch(value)
    if match is None or not 1 <= int(match[1]) <= MAX_SCALE:
        raise SettingsError(f"{name} must be a number of pixels from 1 to {MAX_SCALE}, with or without a +, not {value!r}")


def check_not_empty(name: str, value: str) -> None:
    """Raise `SettingsError` for an empty text, such as an unset variable of a shell."""
    if not value:
        raise SettingsError(f"{name} must not be empty")


def _check_tile(name: str, value: str) -> None:
    if value not in ("auto", "off") and not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_SCALE):
        raise SettingsError(f"{name} must be auto, off or a number of pixels, not {value!r}{near_miss(value, ('auto', 'off'))}")


def _check_memory(name: str, value: str) -> None:
    parse_bytes(name, value)


UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(name: str, text: str) -> int:
    """Return the bytes that a text such as 6GB, 512M or 1.5GiB stands for. Raises `SettingsError`."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([KMGT]?I?)B?\s*", text.upper())
    if match is None or match[2] not in UNITS or not (found := round(float(match[1]) * UNITS[match[2]])):
        raise SettingsError(f"{name} must be an amount of memory such as 6GB or 800MB, not {text!r}")
    return found


def completing(cls: type[T]) -> type[T]:
    """Make a dataclass take what its `completed` returns for the values that it is given."""
    plain = cls.__init__

    @functools.wraps(plain)
    def init(self: T, **values: Any) -> None:
        plain(self, **cls.completed(values))  # type: ignore[attr-defined]

    cls.__init__ = init  # type: ignore[assignment]
    return cls


@completing
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; a `preset` gives those that are left out. Raises `SettingsError` for any value that cannot be used.

    Scales and sizes are in pixels of the long side; weights are pure numbers >= 0. `color...` and `alpha` are work for the
    engine's callers, before and after it.
    """

    preset: str | None = option(None, "the look of another program: its network, losses, weights, optimizer and steps, each "
        "still open to its own flag (--help-presets tells of each)", words=tuple(PRESETS))  # fmt: skip
    style_weights: tuple[float, ...] | None = option(
        None, "factors of the styles in their average, normalised to sum 1 (equal if left out)",
        short="-sw", kind=float, many=True, minimum=0.0, metavar="WEIGHT")  # fmt: skip
    devices: tuple[str, ...] | None = option(
        None, "devices to work on, such as cpu, cuda:1 or cuda:0 cuda:1 (the first that is there and computes right if left out)",
        many=True, metavar="DEVICE", check=check_not_empty)  # fmt: skip
    sharding: str = option("tiles", "how several devices share the work: tiles, each takes its share of the picture; or layers, "
        "each takes its share of the network", words=("tiles", "layers"))  # fmt: skip
    split: str | None = option(None, "with --sharding layers, the layers at which the second and later devices begin, "
        "such as relu2_1,relu4_1 (where memory balances if left out)", metavar="LAYERS", check=check_not_empty)  # fmt: skip
    tile: str = option("auto", "largest tile, as the side in pixels of what it answers for; auto, as large as memory allows; "
        "or off, always the whole picture", check=_check_tile, metavar="PIXELS")  # fmt: skip
    memory: str | None = option(None, "memory to stay within on each device, such as 6GB (most of what is free if left out)",
        check=_check_memory, metavar="LIMIT")  # fmt: skip
    precision: str = option("auto", "numbers that the network works in: fp32, tf32, bf16 or fp16; or auto, what the device is "
        "fast at if its gradients stay right; all else is fp32", words=("auto", "fp32", "tf32", "bf16", "fp16"))  # fmt: skip
    deterministic: bool = option(False, "on GPUs, only algorithms that give the same bits every time, some of them slower",
        flag=True)  # fmt: skip
    cuda_graphs: str = option("auto", "record the steps of a scale once and play them back, so that small pictures do not wait "
        "for the host; auto, on CUDA devices where it comes to the same; or off", words=("auto", "off"))  # fmt: skip
    random_seed: int = option(0, "seed of the random numbers", short="-r", kind=int, minimum=0, maximum=2**63 - 1)
    content_weight: float = option(0.015, "how much of the content picture is kept", short="-cw", kind=float, minimum=0.0,
        maximum=MAX_WEIGHT)  # fmt: skip
    tv_weight: float = option(2.0, "how strongly the picture is smoothed (total variation)", short="-tw", kind=float, minimum=0.0,
        maximum=MAX_WEIGHT)  # fmt: skip
    style_loss: str = option("gram", "what is compared of the style: Gram matrices; the Wasserstein-2 distance of "
        "Gaussians fitted to the features; Gram matrices less the mean (covariance) or of features less 1 (shifted-gram); mean "
        "and standard deviation; or the histogram of each channel", words=STYLE_LOSSES)  # fmt: skip
    extra_loss: str = option("mean-std", "a second thing that is compared, if --extra-weight is not 0", words=STYLE_LOSSES)
    extra_weight: float = option(0.0, "how much the second thing counts, the first counting 1", kind=float, minimum=0.0,
        maximum=MAX_WEIGHT)  # fmt: skip
    style_factor: float = option(1.0, "how much the style counts in all", kind=float, minimum=0.0, maximum=1e12)
    style_gradient: float = option(1.0, "factor of the style's gradient that the loss has not; neuralart's is 0.5", kind=float,
        minimum=0.0, maximum=MAX_WEIGHT)  # fmt: skip
    normalize_gradients: bool = option(False, "divide each layer's gradient by the sum of its magnitudes, as neural-style can",
        flag=True)  # fmt: skip
    content_error: str = option(None, "how content is compared: scaled, sum d^2 / sum |d|; mean or sum, of d^2; or relative, "
        "sum d^2 / mean |2 d| (scaled, or mean with --style-loss wasserstein, if left out)", words=ERRORS)  # fmt: skip
    style_error: str = option(None, "how matrices and moments are compared, in the same words (scaled, or mean for mean-std, if "
        "left out)", words=ERRORS)  # fmt: skip
    gram_norm: str = option("pixels", "what matrices are divided by: pixels, or elements (pixels times channels), of each "
        "picture; raw, both by the elements of the result; raw-squared, by the square of these",
        words=("pixels", "elements", "raw", "raw-squared"))  # fmt: skip
    tv_loss: str = option(None, "total variation: axes, mean square of neighbours' differences; nine-point, on a larger stencil; "
        "inner, half the sum of squares in the network's units (axes, or nine-point with wasserstein, if left out)",
        words=("axes", "nine-point", "inner"))  # fmt: skip
    optimizer: str = option("adam", "optimizer of the picture", words=("adam", "lbfgs", "sgd"))
    line_search: str = option("fixed", "steps of L-BFGS: fixed, as the quasi-Newton step is; or strong-wolfe, searched for, with "
        "every evaluation counting as an iteration", words=("fixed", "strong-wolfe"))  # fmt: skip
    lbfgs_history: int = option(10, "how many steps L-BFGS looks back", kind=int, minimum=1, maximum=1000)
    bounds: str = option("auto", "whether pixels stay within [0, 1] at every step: on, off, or auto, off for L-BFGS alone",
        words=("auto", "on", "off"))  # fmt: skip
    momentum: float = option(0.9, "momentum of SGD", kind=float, minimum=0.0, below=1.0)
    step_decay: float = option(0.75, "what SGD's step size is multiplied by every 100 steps", kind=float, above=0.0, maximum=1.0)
    optimizer_range: float = option(1.0, "white as the optimizer sees it, such as 255: step sizes are in its units", kind=float,
        above=0.0, maximum=1e6)  # fmt: skip
    min_scale: int = option(128, "long side at the first scale", short="-ms", kind=int, minimum=1, maximum=MAX_SCALE)
    end_scale: str = option("512", "long side of the result; N+ means a size whose area is about N x N",
        short="-s", kind=scale_word, check=_check_end_scale, metavar="PIXELS")  # fmt: skip
    iterations: int | str = option(500, "iterations at each scale but the first; or auto: 150 at the first, 300 at the last, "
        "100 at others, with a step size that falls, for about the same picture as by default; the next three then do not count",
        short="-i", kind=int, minimum=1, maximum=10**9, or_word="auto")  # fmt: skip
    initial_iterations: int = option(1000, "iterations at the first scale", short="-ii", kind=int, minimum=1, maximum=10**9)
    step_size: float = option(
        0.02, "step size of Adam and SGD, for pixels in [0, 1]", short="-ss", kind=float, above=0.0, maximum=1e6
    )
    avg_decay: float = option(0.99, "decay of the average of the iterates", short="-ad", kind=float, minimum=0.0, below=1.0)
    init: str = option("content", f"the picture to start from: {', '.join(INITS)}, or a picture file", check=check_not_empty)
    noise: str = option("white", "the noise of --init noise: white, or pink, whose large shapes are as strong as its grain",
        words=("white", "pink"))  # fmt: skip
    noise_deviation: float = option(
        0.25, "standard deviation of that noise about mid-gray", kind=float, minimum=0.0, maximum=10.0
    )
    init_blend: float = option(0.0, "how much of the content is mixed into --init noise or style, from 0 to 1", kind=float,
        minimum=0.0, maximum=1.0)  # fmt: skip
    style_scale: tuple[float, ...] | None = option(None, "sizes of the styles relative to the scale, one for each; for a single "
        "style any number, and it is taken at each of these sizes (--style-scale-fac for all if left out)", kind=float, many=True,
        above=0.0, maximum=1e6, metavar="X")  # fmt: skip
    style_scale_fac: float = option(1.0, "size of the styles relative to the scale", kind=float, above=0.0, maximum=1e6)
    style_size: int | None = option(None, "fixed long side of the styles, instead of one that grows with the scale",
        kind=int, minimum=1, maximum=MAX_SCALE)  # fmt: skip
    pooling: str = option(None, "pooling of the network: average (rescaled by 2), l2 (rescaled by 0.78), mean (as it is) or max "
        "(the network's own if left out: average for vgg19, vgg16 and compact, else max)",
        words=("average", "max", "l2", "mean"))  # fmt: skip
    content_layers: tuple[str, ...] = option(None, "layers at which the content is compared (the network's own if left out, "
        "relu4_2 for VGG)", many=True, metavar="LAYER")  # fmt: skip
    content_layer_weights: tuple[float, ...] | None = option(None, "one weight for each content layer, normalised to sum 1 "
        "(equal if left out)", kind=float, many=True, minimum=0.0, metavar="WEIGHT")  # fmt: skip
    style_layers: tuple[str, ...] = option(None, "layers at which the style is compared (the network's own if left out, "
        "relu1_1 relu2_1 relu3_1 relu4_1 relu5_1 for VGG)", many=True, metavar="LAYER")  # fmt: skip
    style_layer_weights: tuple[float, ...] | None = option(
        None, "one weight for each style layer, normalised to sum 1 (256 64 16 4 1 for the default layers; "
        "each a quarter of the one before)", kind=float, many=True, minimum=0.0, metavar="WEIGHT")  # fmt: skip
    network: str = option("auto", "the network that judges the picture, such as vgg19; compact, built in and several times "
        "faster; or auto, vgg19 if its weights are there or can be downloaded, else compact (--help-networks tells of each)",
        words=("auto", *catalog.NETWORKS))  # fmt: skip
    weights: str | None = option(None, "file with the network's weights, .safetensors, .pth or .npz with torchvision's key names "
        "or the layers', or a .caffemodel (left out: torchvision's own, downloaded once, where it has them)", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    preprocessing: str = option("auto", "how the network gets colours, as in one of these programs; or auto, as it was trained",
        words=("auto", "torchvision", "caffe", "neural-style", "neuralart", "fzliu"))  # fmt: skip
    lrn: str = option("on", "local response normalisation in networks that have it, googlenet and caffenet", words=("on", "off"))
    color: str = option("style", "where colours come from: style; content, the result's lightness with the content's own "
        "colours; luminance, the same and lightness alone is painted; match-style, the styles take on the content's colours "
        "first; or match-content, the content takes on the styles'", words=COLORS)  # fmt: skip
    color_space: str = option("oklab", "space in which colours are taken apart and matched; rgb is for the match- modes",
        words=COLOR_SPACES)  # fmt: skip
    color_match: str = option("covariance", "what the match- modes make equal: mean and covariance of the colours, or the whole "
        "histogram in three dimensions", words=("covariance", "histogram"))  # fmt: skip
    alpha: str = option("ignore", "the content's transparency: ignore, colours are used as stored; or keep, the result gets it "
        "(.tif .tiff .png .webp)", words=("ignore", "keep"))  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.end_scale, numbers.Integral) and not isinstance(self.end_scale, bool):
            object.__setattr__(self, "end_scale", str(int(self.end_scale)))
        validate_fields(self)
        for name in ("pooling", "content_layers", "style_layers"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(catalog.about(self.network), name))
        family = {"content_error": ("scaled", "mean"), "tv_loss": ("axes", "nine-point")}
        for name, choice in family.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, choice[self.style_loss == "wasserstein"])
        if self.style_error is None:
            object.__setattr__(self, "style_error", "mean" if self.style_loss == "mean-std" else "scaled")
        for name in ("style_weights", "style_layer_weights", "content_layer_weights"):
            weights = getattr(self, name)
            if weights is not None and not 0 < sum(weights) < math.inf:
                words = " ".join(f"{w:g}" for w in weights)
                raise SettingsError(f"{flag_name(name)} {words} sum to {sum(weights):g}; make at least one of them positive")
        for name in ("content_layers", "style_layers"):
            layers = getattr(self, name)
            if len(set(layers)) != len(layers):
                raise SettingsError(f"{flag_name(name)} {' '.join(layers)} names a layer twice")
        if self.style_layer_weights is not None and len(self.style_layer_weights) != len(self.style_layers):
            raise SettingsError(
                f"--style-layer-weights has {len(self.style_layer_weights)} values for {len(self.style_layers)} "
                "style layers; give one for each"
            )
        if self.iterations == "auto" and self.optimizer != "adam":
            raise SettingsError(f"--iterations auto goes with --optimizer adam, not {self.optimizer}; give a number")
        if self.gram_norm.startswith("raw") and self.style_loss != "gram":
            raise SettingsError(
                f"--gram-norm {self.gram_norm} goes with --style-loss gram, not with {self.style_loss}; take elements"
            )
        if self.content_layer_weights is not None and len(self.content_layer_weights) != len(self.content_layers):
            raise SettingsError(
                f"--content-layer-weights has {len(self.content_layer_weights)} values for {len(self.content_layers)} "
                "content layers; give one for each"
            )
        if self.split is not None and self.sharding != "layers":
            raise SettingsError("--split goes with --sharding layers")
        if self.color_space == "rgb" and self.color in ("content", "luminance"):
            raise SettingsError(f"--color {self.color} needs a lightness; take --color-space oklab, lab, luv or yuv, not rgb")

    @property
    def layers(self) -> frozenset[str]:
        """The layers of content and style."""
        return frozenset((*self.content_layers, *self.style_layers))

    @property
    def split_layers(self) -> tuple[str, ...] | None:
        """The layers that `split` names."""
        return None if self.split is None else tuple(self.split.split(","))

    @property
    def layer_weights(self) -> dict[str, float]:
        """The weight of each style layer; they sum to 1."""
        given = self.style_layer_weights
        if given is None:
            given = tuple(4.0**-i for i in range(len(self.style_layers)))
        return {layer: w / sum(given) for layer, w in zip(self.style_layers, given, strict=True)}

    @property
    def content_weights(self) -> dict[str, float]:
        """The weight of each content layer; they sum to 1."""
        given = self.content_layer_weights or (1.0,) * len(self.content_layers)
        return {layer: w / sum(given) for layer, w in zip(self.content_layers, given, strict=True)}

    @property
    def statistics(self) -> tuple[str, ...]:
        """What is compared of the style: the loss, and the second one if it counts."""
        return (self.style_loss, self.extra_loss) if self.extra_weight else (self.style_loss,)

    @property
    def bounded(self) -> bool:
        """Whether pixels stay within [0, 1] at every step."""
        return self.optimizer != "lbfgs" if self.bounds == "auto" else self.bounds == "on"

    def expanded(self, styles: int) -> tuple[tuple[int, float], ...]:
        """Return which of `styles` pictures are measured, each with its size relative to the scale.

        One style at several sizes counts several times. Raises `SettingsError` if `style_scale` has another number of values.
        """
        if self.style_scale is None:
            return tuple((index, self.style_scale_fac) for index in range(styles))
        if styles == 1:
            return tuple((0, scale) for scale in self.style_scale)
        if len(self.style_scale) != styles:
            raise SettingsError(
                f"--style-scale has {len(self.style_scale)} values for {styles} style pictures; give one for each"
            )
        return tuple(enumerate(self.style_scale))

    def blend(self, styles: int) -> tuple[float, ...]:
        """Return the weights of `styles` style pictures, summing to 1.

        Raises `SettingsError` if `style_weights` has another number of values.
        """
        given = self.style_weights if self.style_weights is not None else (1.0,) * styles
        if styles < 1:
            raise SettingsError("at least one style picture is needed")
        if len(given) != styles:
            raise SettingsError(
                f"--style-weights has {len(given)} values for {styles} style picture{'s' * (styles != 1)}; give one for each"
            )
        return tuple(w / sum(given) for w in given)

    def resolve(self) -> Resolved:
        """Return the same settings with nothing left open."""
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @property
    def large_gradients(self) -> bool:
        """Whether errors are sums of squares or of raw matrices: their gradients are beyond float16's range."""
        return "sum" in (self.content_error, self.style_error) or self.gram_norm.startswith("raw")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from a mapping such as `as_dict` returns. Raises `SettingsError` for an unknown name."""
        return cls(**values)

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings by name with what their `preset` says of those that are not there.

        With another network than the preset's, that network's own preprocessing and layers are taken, and where squares of
        activations are weighed against their fourth powers the style counts as much as it would with the preset's. Raises
        `SettingsError` for an unknown name.
        """
        known = options_of(cls)
        for name in values:
            if name not in known:
                raise SettingsError(f"unknown setting {name!r}{near_miss(name, known)}")
        preset = known["preset"][1].validate("--preset", values.get("preset"))
        if preset is None:
            return dict(values)
        found = dict(PRESETS[preset].settings)
        network = values.get("network", found["network"])
        # names that nothing has are told of elsewhere
        usual, here = (catalog.about(name if name in catalog.NETWORKS else "auto") for name in (found["network"], network))
        if network != found["network"]:
            found.pop("preprocessing", None)
            if found.get("style_error") in ("mean", "sum"):
                found["style_factor"] *= (usual.magnitude / here.magnitude) ** 2
        if here.style_layers != usual.style_layers:
            found.pop("content_layers", None)
            found.pop("style_layers", None)
        if "style_layer_weights" in found:  # all presets weight their layers equally, so others count equally too
            layers = values.get("style_layers") or found.get("style_layers") or here.style_layers
            found["style_layer_weights"] = (1.0,) * len(layers)
        return found | dict(values)


Resolved = Settings
"""Settings of which nothing is left open, as `Settings.resolve` returns them."""
