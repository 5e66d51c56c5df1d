"""Settings: everything that decides what the picture looks like, as one frozen dataclass.

Defaults, help, choices and checks stand here once; the parser, the metadata written into pictures and the
README's table of options are made from them. The default values are those of style-transfer-pytorch, but for
pooling, which is `average`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import SettingsError, near_miss

INITS = ("content", "gray", "uniform", "normal", "style_mean", "style_stats")
MAX_SCALE = 1_000_000
END_SCALE = re.compile(r"([0-9]{1,7})(\+?)")


@dataclasses.dataclass(frozen=True)
class Option:
    """What is said and checked about one setting.

    `short` is its one-letter form; `kind` turns a word of the command line into a value; numbers must be finite
    and lie in [`minimum`, `maximum`], or above `above`, or below `below`; `many` takes several words and gives a
    tuple; `words` are the names a value may have; `check` raises `SettingsError` for whatever else may be wrong.
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

    def validate(self, name: str, value: Any) -> Any:
        """Return `value` in its canonical type, or raise `SettingsError` naming `name`, the value and the way out."""
        if value is None:
            return None
        if self.flag:
            if not isinstance(value, bool):
                raise SettingsError(f"{name} is on or off: True or False, not {value!r}")
            return value
        if self.many:
            if isinstance(value, str):
                value = (value,)
            if not value:
                raise SettingsError(f"{name} needs at least one value")
            return tuple(self._one(name, item) for item in value)
        return self._one(name, value)

    def _one(self, name: str, value: Any) -> Any:
        if self.kind in (int, float):
            value = self._number(name, value)
        elif self.kind is str and not isinstance(value, str):
            raise SettingsError(f"{name} must be text, not {value!r}")
        if self.words and value not in self.words:
            raise SettingsError(f"{name} {value!r} is not one of {', '.join(self.words)}{near_miss(str(value), self.words)}")
        if self.check is not None:
            self.check(name, value)
        return value

    def _number(self, name: str, value: Any) -> float:
        whole = self.kind is int
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{name} must be a number, not {value!r}")
        if not math.isfinite(value):
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


def _check_not_empty(name: str, value: str) -> None:
    if not value:
        raise SettingsError(f"{name} must not be empty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run. Raises `SettingsError` for any value that cannot be used.

    Scales and sizes are in pixels of the long side; weights are pure numbers >= 0.
    """

    style_weights: tuple[float, ...] | None = option(
        None, "factors of the styles in their average, normalised to sum 1 (equal if left out)",
        short="-sw", kind=float, many=True, minimum=0.0, metavar="WEIGHT")  # fmt: skip
    devices: tuple[str, ...] | None = option(
        None, "one or two devices, such as cpu, cuda:1 or cuda:0 cuda:1; with two, the first block of the network "
        "runs on the first (the first device that is there and computes right if left out)",
        many=True, metavar="DEVICE", check=_check_not_empty)  # fmt: skip
    random_seed: int = option(0, "seed of the random numbers", short="-r", kind=int, minimum=0, maximum=2**63 - 1)
    content_weight: float = option(0.015, "how much of the content picture is kept", short="-cw", kind=float, minimum=0.0)
    tv_weight: float = option(2.0, "how strongly the picture is smoothed (total variation)", short="-tw", kind=float, minimum=0.0)
    style_loss: str = option("gram", "what is compared of the style: Gram matrices, or the Wasserstein-2 distance of "
        "Gaussians fitted to the features", words=("gram", "wasserstein"))  # fmt: skip
    optimizer: str = option("adam", "optimizer of the picture", words=("adam", "lbfgs"))
    min_scale: int = option(128, "long side at the first scale", short="-ms", kind=int, minimum=1, maximum=MAX_SCALE)
    end_scale: str = option("512", "long side of the result; N+ means a size whose area is about N x N",
        short="-s", kind=scale_word, check=_check_end_scale, metavar="PIXELS")  # fmt: skip
    iterations: int = option(500, "iterations at each scale but the first", short="-i", kind=int, minimum=1, maximum=10**9)
    initial_iterations: int = option(1000, "iterations at the first scale", short="-ii", kind=int, minimum=1, maximum=10**9)
    step_size: float = option(0.02, "Adam's step size, for pixels in [0, 1]", short="-ss", kind=float, above=0.0, maximum=1e6)
    avg_decay: float = option(0.99, "decay of the average of the iterates", short="-ad", kind=float, minimum=0.0, below=1.0)
    init: str = option("content", f"the picture to start from: {', '.join(INITS)}, or a picture file", check=_check_not_empty)
    style_scale_fac: float = option(1.0, "size of the styles relative to the scale", kind=float, above=0.0, maximum=1e6)
    style_size: int | None = option(None, "fixed long side of the styles, instead of one that grows with the scale",
        kind=int, minimum=1, maximum=MAX_SCALE)  # fmt: skip
    pooling: str = option("average", "pooling of the network: average (rescaled by 2), l2 (rescaled by 0.78) or max",
        words=("average", "max", "l2"))  # fmt: skip
    content_layers: tuple[str, ...] = option(("relu4_2",), "layers at which the content is compared", many=True, metavar="LAYER")
    style_layers: tuple[str, ...] = option(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "layers at which the style is compared", many=True, metavar="LAYER")  # fmt: skip
    style_layer_weights: tuple[float, ...] | None = option(
        None, "one weight for each style layer, normalised to sum 1 (256 64 16 4 1 for the default layers; "
        "each a quarter of the one before)", kind=float, many=True, minimum=0.0, metavar="WEIGHT")  # fmt: skip
    weights: str | None = option(None, "file with VGG-19's weights, .safetensors or .pth with torchvision's key names "
        "(torchvision's own, downloaded once, if left out)", metavar="FILE", check=_check_not_empty)  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.end_scale, int) and not isinstance(self.end_scale, bool):
            object.__setattr__(self, "end_scale", str(self.end_scale))
        validate_fields(self)
        for name in ("style_weights", "style_layer_weights"):
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
        if self.devices is not None and len(self.devices) > 2:
            raise SettingsError(f"--devices takes one or two devices, not {len(self.devices)}: {' '.join(self.devices)}")

    @property
    def layer_weights(self) -> dict[str, float]:
        """The weight of each style layer; they sum to 1."""
        given = self.style_layer_weights
        if given is None:
            given = tuple(4.0**-i for i in range(len(self.style_layers)))
        return {layer: w / sum(given) for layer, w in zip(self.style_layers, given, strict=True)}

    def blend(self, styles: int) -> tuple[float, ...]:
        """Return the weights of `styles` style pictures, summing to 1.

        Raises `SettingsError` if `style_weights` has another number of values.
        """
        given = self.style_weights if self.style_weights is not None else (1.0,) * styles
        if styles < 1:
            raise SettingsError("at least one style picture is needed")
        if len(given) != styles:
            raise SettingsError(f"--style-weights has {len(given)} values for {styles} style pictures; give one for each")
        return tuple(w / sum(given) for w in given)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from a mapping such as `as_dict` returns. Raises `SettingsError` for an unknown name."""
        known = options_of(cls)
        for name in values:
            if name not in known:
                raise SettingsError(f"unknown setting {name!r}{near_miss(name, known)}")
        return cls(**values)
