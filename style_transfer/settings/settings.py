"""What determines the picture: `Settings`, which a user chooses, and `Resolved`, which a run uses.

Each setting is declared here once. Where the defaults differ from style-transfer-pytorch's, its preset has the originals.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, Final

from ..errors import SettingsError, near_miss
from ..registry import CONTENT_LOSSES, NETWORKS, OPTIMIZERS, STYLE_LOSSES
from .checks import MAX_SCALE, check_end_scale, check_memory, check_tile
from .option import check_not_empty, flag_name, open_option, options_of, validate_fields
from .presets import PRESETS, network_entry, preset_settings

INITS: Final = {
    "content": "the content picture",
    "gray": "mid-gray, with noise of one 8-bit step",
    "uniform": "uniform noise",
    "normal": "normal noise of mean 0.5 and standard deviation 0.25",
    "style_mean": "the mean colour of the styles",
    "style_stats": "normal noise with the mean and standard deviation of the styles' channels",
    "style": "the average of the styles, stretched to the size of the picture",
    "noise": "the noise that --noise and --noise-deviation describe",
    "network_mean": "the colour that the network maps to zero, with faint noise, as in neural-style",
}
ERRORS: Final = {
    "scaled": "sum d^2 / sum |d|",
    "mean": "mean d^2",
    "sum": "sum d^2",
    "relative": "sum d^2 / mean |2 d|",
}
NUMBERED: Final = 500
"""The number of iterations at a scale where it is not automatic."""
STRENGTH: Final = 0.8
"""The strength at which the content weight is the declared one."""
MAX_WEIGHT: Final = 1e9
WEIGHT: Final[dict[str, Any]] = {"kind": float, "minimum": 0.0, "maximum": MAX_WEIGHT}
FACTORS: Final[dict[str, Any]] = {"kind": float, "many": True, "minimum": 0.0, "metavar": "WEIGHT"}
FACTOR: Final[dict[str, Any]] = {"kind": float, "above": 0.0, "maximum": 1e6}
SCALE: Final[dict[str, Any]] = {"kind": int, "minimum": 1, "maximum": MAX_SCALE, "metavar": "PIXELS"}
STEPS: Final[dict[str, Any]] = {"kind": int, "minimum": 1, "maximum": 10**9}


def following_strength(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that follow from the strength, from the values of all settings at the default strength.

    With a content weight that is proportional to (1 - s) / s, equal changes of the strength s have about equal effects: the
    gradients of the photograph that are lost are about s times those that are lost without a content loss.
    """
    strength = values["strength"]
    if strength:
        return {"content_weight": values["content_weight"] * (1 / strength - 1) / (1 / STRENGTH - 1)}
    # one scale that begins and ends with the photograph
    return dict.fromkeys(("style_factor", "extra_weight", "tv_weight", "band_weight"), 0.0) | {"min_scale": MAX_SCALE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user chooses; a setting left open is None, and `resolve` fills it in.

    Raises `SettingsError` for values that cannot be used or do not go together. Scales and sizes are in pixels of the long
    side; weights are pure numbers >= 0. The `color...` settings and `alpha` are applied by the callers of the engine, before
    and after it.
    """

    preset: str | None = open_option(None, "use the settings of another program; other options override them",
        topic="presets", words=PRESETS)  # fmt: skip

    style_weights: tuple[float, ...] | None = open_option(None, "set the weight of each style in the weighted average",
        topic="look", default_help="equal", short="-sw", **FACTORS)  # fmt: skip
    strength: float | None = open_option(STRENGTH, "choose between the photograph, 0, and nothing but style, 1", topic="look",
        kind=float, minimum=0.0, maximum=1.0, metavar="X")  # fmt: skip
    content_weight: float | None = open_option(0.04, "set the weight of the content loss; higher values keep more of it",
        topic="look", default_help="by --strength and the style loss", short="-cw", **WEIGHT)  # fmt: skip
    tv_weight: float | None = open_option(0.0, "weight the total variation; 2, say, smooths", topic="look", short="-tw", **WEIGHT)
    band_weight: float | None = open_option(2.0, "weight the contrast of fine detail, against lattices", topic="look", **WEIGHT)
    style_loss: str | None = open_option("gram", "compare styles by this loss", topic="look", words=STYLE_LOSSES)
    extra_loss: str | None = open_option("mean-std", "set a second style loss, unused while --extra-weight is 0",
        topic="look", words=STYLE_LOSSES)  # fmt: skip
    extra_weight: float | None = open_option(0.0, "weight --extra-loss, relative to --style-loss", topic="look", **WEIGHT)
    style_factor: float | None = open_option(1.0, "scale the style losses", topic="look", kind=float, minimum=0.0, maximum=1e12)
    style_gradient: float | None = open_option(1.0, "multiply the gradients of the style losses, but not their values",
        topic="look", **WEIGHT)  # fmt: skip
    normalize_gradients: bool | None = open_option(False, "divide each layer's gradient by its L1 norm, as neural-style can",
        topic="look", flag=True)  # fmt: skip
    content_loss: str | None = open_option("features", "compare content by this loss", topic="look", words=CONTENT_LOSSES)
    content_error: str | None = open_option("scaled", "compare content features by this error of their differences d",
        topic="look", default_help="that of the style loss, else scaled", words=ERRORS)  # fmt: skip
    style_error: str | None = open_option(None, "compare style statistics by this error of their differences d",
        topic="look", default_help="that of each style loss", words=ERRORS)  # fmt: skip
    gram_norm: str | None = open_option("pixels", "divide Gram matrices by this number", topic="look", words={
        "pixels": "pixels of the picture that each matrix belongs to",
        "elements": "pixels times channels of that picture",
        "raw": "pixels times channels of the result, for all matrices",
        "raw-squared": "the square of raw"})  # fmt: skip
    tv_loss: str | None = open_option("axes", "measure the total variation in this way", topic="look",
        default_help="that of the style loss, else axes", words={
        "axes": "mean square of the differences of neighbours",
        "nine-point": "squared differences to horizontal, vertical and diagonal neighbours",
        "inner": "half the sum of squares in the network's units"})  # fmt: skip
    init: str | None = open_option("content", "start from this kind of picture, or from a file", topic="look",
        words=INITS, open_words=True, metavar="FILE", check=check_not_empty)  # fmt: skip
    noise: str | None = open_option("white", "use this noise for --init noise", topic="look", words={
        "white": "equal amplitudes at all frequencies",
        "pink": "amplitudes that fall with the frequency"})  # fmt: skip
    noise_deviation: float | None = open_option(0.25, "set the deviation of --init noise", topic="look", kind=float, minimum=0.0,
        maximum=10.0)  # fmt: skip
    init_blend: float | None = open_option(0.0, "blend this share of the content into --init noise or style",
        topic="look", kind=float, minimum=0.0, maximum=1.0)  # fmt: skip
    random_seed: int | None = open_option(0, "seed the random numbers", topic="look", short="-r", kind=int, minimum=0,
        maximum=2**63 - 1)  # fmt: skip

    color: str | None = open_option("style", "choose where the colours of the result come from", topic="colour", words={
        "style": "the style transfer",
        "content": "the content, with the lightness of the result",
        "luminance": "the same, and transfer only lightness",
        "match-style": "the style transfer, with styles matched to the content's colours before",
        "match-content": "the style transfer, with the content matched to the styles' colours before"})  # fmt: skip
    color_space: str | None = open_option("oklab", "separate and match colours in this space", topic="colour",
        words={"oklab": "", "lab": "CIE 1976 L*a*b*", "luv": "CIE 1976 L*u*v*", "yuv": "",
        "rgb": "for the match- modes only"})  # fmt: skip
    color_match: str | None = open_option("covariance", "make these equal in the match- modes", topic="colour", words={
        "covariance": "mean and covariance of the colours",
        "histogram": "the histogram in three dimensions"})  # fmt: skip
    alpha: str | None = open_option("ignore", "treat the transparency of the content in this way", topic="colour", words={
        "ignore": "use colours as stored",
        "keep": "copy it to the result (.tif .tiff .png .webp)"})  # fmt: skip

    min_scale: int | None = open_option(128, "start the run at this long side", topic="size", short="-ms", **SCALE)
    end_scale: str | None = open_option("512", "set the long side of the result; N+ sets an area of about N x N, and 0 is the "
        "content's own size", topic="size", short="-s", check=check_end_scale, metavar="PIXELS")  # fmt: skip
    scales: tuple[int, ...] | None = open_option(None, "paint at these long sides, in place of --min-scale and --end-scale",
        topic="size", many=True, **SCALE)  # fmt: skip
    style_scale: tuple[float, ...] | None = open_option(None, "size each style relative to the scale, or one at several sizes",
        topic="size", default_help="--style-scale-fac", many=True, metavar="X", **FACTOR)  # fmt: skip
    style_scale_fac: float | None = open_option(1.0, "size all styles relative to the scale", topic="size", **FACTOR)
    style_enlarge: bool | None = open_option(False, "enlarge styles that are too small", topic="size", flag=True)
    style_size: int | None = open_option(None, "fix the long side of the styles", topic="size",
        default_help="grows with the scale", **SCALE)  # fmt: skip

    devices: tuple[str, ...] | None = open_option(None, "compute on these devices, such as cuda:0",
        topic="devices", default_help="the first usable", many=True, metavar="DEVICE", check=check_not_empty)  # fmt: skip
    sharding: str | None = open_option("tiles", "divide this among several devices", topic="devices", words={
        "tiles": "the picture", "layers": "the network"})  # fmt: skip
    split: str | None = open_option(None, "with --sharding layers, start the second and later devices at these layers",
        topic="devices", default_help="balanced by memory", metavar="LAYERS", check=check_not_empty)  # fmt: skip
    tile: str | None = open_option("auto", "limit the sides of tiles, in pixels", topic="devices", words={
        "auto": "as large as memory allows", "off": "process the whole picture at once"}, open_words=True, check=check_tile,
        metavar="PIXELS")  # fmt: skip
    memory: str | None = open_option(None, "use at most this much memory on each device, such as 6GB", topic="devices",
        default_help="most of the free memory", check=check_memory, metavar="LIMIT")  # fmt: skip
    precision: str | None = open_option("auto", "compute the network in this precision, and all else in fp32",
        topic="devices", words={"auto": "the fastest one whose gradients are right on the device", "fp32": "", "tf32": "",
        "bf16": "", "fp16": ""})  # fmt: skip
    deterministic: bool | None = open_option(False, "use only GPU algorithms with reproducible results; some are slower",
        topic="devices", flag=True)  # fmt: skip
    cuda_graphs: str | None = open_option("auto", "record the steps of a scale once and replay them, for speed at small sizes",
        topic="devices", words={"auto": "on CUDA devices, where the result is the same", "off": "never"})  # fmt: skip

    network: str | None = open_option("auto", "compare features of this network; auto is vgg19 if its weights exist or can be "
        "downloaded, else compact", topic="networks", words=NETWORKS, or_word="auto")  # fmt: skip
    weights: str | None = open_option(None, "read the network's weights from this file (.safetensors .pth .npz .caffemodel)",
        topic="networks", default_help="torchvision's, downloaded once", metavar="FILE", check=check_not_empty)  # fmt: skip
    preprocessing: str | None = open_option("auto", "scale and order the network's input as this program does",
        topic="networks", words={"auto": "as the network was trained", "torchvision": "", "caffe": "", "neural-style": "",
        "neuralart": "", "fzliu": ""})  # fmt: skip
    pooling: str | None = open_option(None, "pool features in this way", topic="networks", default_help="the network's own",
        words={"average": "mean times 2", "max": "maximum", "l2": "root mean square times 0.78", "mean": "mean"})  # fmt: skip
    padding: str | None = open_option("mirror", "continue pictures beyond their edges in this way", topic="networks", words={
        "mirror": "by their mirror image, so that edges look like the rest",
        "network": "as the network was trained: by zeros, mostly"})  # fmt: skip
    lrn: str | None = open_option("on", "apply local response normalization in networks that have it", topic="networks",
        words={"on": "", "off": ""})  # fmt: skip
    content_layers: tuple[str, ...] | None = open_option(None, "compare content at these layers", topic="networks",
        default_help="by network and content loss", many=True, metavar="LAYER")  # fmt: skip
    content_layer_weights: tuple[float, ...] | None = open_option(None, "weight each content layer", topic="networks",
        default_help="equal", **FACTORS)  # fmt: skip
    style_layers: tuple[str, ...] | None = open_option(None, "compare styles at these layers", topic="networks",
        default_help="the network's own", many=True, metavar="LAYER")  # fmt: skip
    style_layer_weights: tuple[float, ...] | None = open_option(None, "weight each style layer", topic="networks",
        default_help="each a quarter of the one before", **FACTORS)  # fmt: skip

    optimizer: str | None = open_option("adam", "optimize the picture in this way", topic="optimizer", words=OPTIMIZERS)
    iterations: int | str | None = open_option("auto", "take N steps at each scale after the first; auto takes 75 at the "
        "first, 150 at the last and 50 at others, with a falling step size", topic="optimizer",
        default_help=f"auto, but {NUMBERED} with -ii, -ss, -ad or another optimizer than adam", short="-i",
        or_word="auto", **STEPS)  # fmt: skip
    initial_iterations: int | None = open_option(1000, "take N steps at the first scale", topic="optimizer", short="-ii",
        **STEPS)  # fmt: skip
    steps: tuple[int, ...] | None = open_option(None, "take these numbers of steps at the scales; the last one holds for others",
        topic="optimizer", default_help="-ii and -i", many=True, **STEPS)  # fmt: skip
    tolerance: float | None = open_option(0.0, "end a scale once 50 steps lower the loss by less than this share of it, as 1e-3",
        topic="optimizer", kind=float, minimum=0.0, below=1.0)  # fmt: skip
    step_size: float | None = open_option(0.02, "set the step size of adam and sgd, for pixels in [0, 1]", topic="optimizer",
        short="-ss", **FACTOR)  # fmt: skip
    avg_decay: float | None = open_option(0.99, "set the decay of the average of iterates, which is the result",
        topic="optimizer", short="-ad", kind=float, minimum=0.0, below=1.0)  # fmt: skip
    line_search: str | None = open_option("fixed", "choose the steps of lbfgs in this way", topic="optimizer", words={
        "fixed": "take each quasi-Newton step as it is",
        "strong-wolfe": "search along it; each evaluation counts as an iteration"})  # fmt: skip
    lbfgs_history: tuple[int, ...] | None = open_option((10,), "let lbfgs keep N past steps, or as many as listed for each scale",
        topic="optimizer", kind=int, many=True, minimum=1, maximum=1000, metavar="N")  # fmt: skip
    bounds: str | None = open_option("auto", "clamp pixels to [0, 1] at every step", topic="optimizer", words={
        "auto": "as suits the optimizer: off for lbfgs, else on", "on": "", "off": ""})  # fmt: skip
    momentum: float | None = open_option(0.9, "set the momentum of sgd", topic="optimizer", kind=float, minimum=0.0, below=1.0)
    step_decay: float | None = open_option(0.75, "multiply the step size of sgd by this every 100 steps", topic="optimizer",
        kind=float, above=0.0, maximum=1.0)  # fmt: skip
    optimizer_range: float | None = open_option(1.0, "let the optimizer see pixels in [0, X], such as 255; step sizes are in its "
        "units", topic="optimizer", **FACTOR)  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self, options_of(Settings))
        self.resolve()  # raises SettingsError for choices that do not go together

    def chosen(self) -> dict[str, Any]:
        """Return the settings that the user chose, by name."""
        return {name: value for name in options_of(Settings) if (value := getattr(self, name)) is not None}

    def resolve(self) -> Resolved:
        """Return these settings with all that was left open filled in.

        A choice takes precedence over the preset, the preset over defaults that follow from the network, the style loss and
        the optimizer, and these over the declared defaults. Raises `SettingsError` for choices that do not go together.
        """
        options = options_of(Settings)
        values = {name: about.default for name, about in options.items()}
        chosen = self.chosen()
        chosen = ({} if self.preset is None else preset_settings(self.preset, chosen)) | chosen
        network = network_entry(chosen.get("network", values["network"]))
        values |= {name: getattr(network, name) for name in ("pooling", "style_layers")}
        values["content_layers"] = CONTENT_LOSSES[chosen.get("content_loss", "features")].default_layers(network)
        implied: dict[str, Any] = {"bounds": "on"}
        for name, registry in (("style_loss", STYLE_LOSSES), ("optimizer", OPTIMIZERS)):
            implied |= registry[chosen.get(name, values[name])].defaults
        numbered = {"initial_iterations", "step_size", "avg_decay"} & chosen.keys()
        if numbered or not OPTIMIZERS[chosen.get("optimizer", values["optimizer"])].scheduled:
            implied["iterations"] = NUMBERED
        values |= implied | {"style_error": None} | chosen  # each style loss has its own default of style_error
        if values["bounds"] == "auto":
            values["bounds"] = implied["bounds"]
        following = following_strength(values)
        return Resolved(**values | {k: value for k, value in following.items() if getattr(self, k) is None})

    def as_dict(self) -> dict[str, Any]:
        """Return all settings by name, as values that JSON can hold; None for what is open."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return settings from a mapping such as `as_dict` returns. Raises `SettingsError`, also for an unknown name."""
        for name in values:
            if name not in options_of(Settings):
                raise SettingsError(f"unknown setting {name!r}{near_miss(name, options_of(Settings))}")
        return Settings(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolved(Settings):
    """What a run uses, as `Settings.resolve` returns it: nothing is open.

    None has a meaning of its own here, that of the option's help: equal weights, or `style_error` as each loss has it.
    """

    preset: str | None
    style_weights: tuple[float, ...] | None
    strength: float
    content_weight: float
    tv_weight: float
    band_weight: float
    style_loss: str
    extra_loss: str
    extra_weight: float
    style_factor: float
    style_gradient: float
    normalize_gradients: bool
    content_loss: str
    content_error: str
    style_error: str | None
    gram_norm: str
    tv_loss: str
    init: str
    noise: str
    noise_deviation: float
    init_blend: float
    random_seed: int
    color: str
    color_space: str
    color_match: str
    alpha: str
    min_scale: int
    end_scale: str
    scales: tuple[int, ...] | None
    style_scale: tuple[float, ...] | None
    style_scale_fac: float
    style_enlarge: bool
    style_size: int | None
    devices: tuple[str, ...] | None
    sharding: str
    split: str | None
    tile: str
    memory: str | None
    precision: str
    deterministic: bool
    cuda_graphs: str
    network: str
    weights: str | None
    preprocessing: str
    pooling: str
    padding: str
    lrn: str
    content_layers: tuple[str, ...]
    content_layer_weights: tuple[float, ...] | None
    style_layers: tuple[str, ...]
    style_layer_weights: tuple[float, ...] | None
    optimizer: str
    iterations: int | str
    initial_iterations: int
    steps: tuple[int, ...] | None
    tolerance: float
    step_size: float
    avg_decay: float
    line_search: str
    lbfgs_history: tuple[int, ...]
    bounds: str
    momentum: float
    step_decay: float
    optimizer_range: float

    def __post_init__(self) -> None:
        validate_fields(self, options_of(Settings))
        for name in ("style_weights", "style_layer_weights", "content_layer_weights"):
            weights = getattr(self, name)
            if weights is not None and not 0 < sum(weights) < math.inf:
                words = " ".join(f"{w:g}" for w in weights)
                raise SettingsError(f"{flag_name(name)} {words} sum to {sum(weights):g}; make at least one of them positive")
        for kind in ("content", "style"):
            layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
            if len(set(layers)) != len(layers):
                raise SettingsError(f"--{kind}-layers {' '.join(layers)} names a layer twice")
            if weights is not None and len(weights) != len(layers):
                raise SettingsError(
                    f"--{kind}-layer-weights has {len(weights)} values for {len(layers)} {kind} layers; give one for each"
                )
        if any(after <= before for before, after in itertools.pairwise(self.scales or ())):
            raise SettingsError(f"--scales must grow from one to the next, not {' '.join(map(str, self.scales or ()))}")
        if self.iterations == "auto" and not OPTIMIZERS[self.optimizer].scheduled:
            raise SettingsError(f"--iterations auto does not go with --optimizer {self.optimizer}; give a number")
        for flag, loss in zip(("--style-loss", "--extra-loss"), self.statistics, strict=False):
            norms = STYLE_LOSSES[loss].gram_norms
            if self.gram_norm not in norms:
                raise SettingsError(f"--gram-norm {self.gram_norm} does not go with {flag} {loss}; use {' or '.join(norms)}")
        losses = {self.content_loss: CONTENT_LOSSES[self.content_loss]} | {name: STYLE_LOSSES[name] for name in self.statistics}
        for name, loss in losses.items():
            if loss.sampled and not OPTIMIZERS[self.optimizer].tolerates_noise:
                raise SettingsError(f"{name} is a random loss, which --optimizer {self.optimizer} cannot minimize; use adam")
            if loss.random and self.line_search != "fixed":
                raise SettingsError(f"{name} is a random loss, which --line-search {self.line_search} cannot compare; use fixed")
        if self.split is not None and self.sharding != "layers":
            raise SettingsError("--split goes with --sharding layers")
        if self.color_space == "rgb" and self.color in ("content", "luminance"):
            raise SettingsError(f"--color {self.color} needs a lightness; take --color-space oklab, lab, luv or yuv, not rgb")

    def resolve(self) -> Resolved:
        """Return these settings: they are resolved."""
        return self

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
        given = self.style_layer_weights or tuple(4.0**-i for i in range(len(self.style_layers)))
        return {layer: w / sum(given) for layer, w in zip(self.style_layers, given, strict=True)}

    @property
    def content_weights(self) -> dict[str, float]:
        """The weight of each content layer; they sum to 1."""
        given = self.content_layer_weights or (1.0,) * len(self.content_layers)
        return {layer: w / sum(given) for layer, w in zip(self.content_layers, given, strict=True)}

    @property
    def statistics(self) -> tuple[str, ...]:
        """The style losses that count: the first, and the second if it has a weight."""
        return (self.style_loss, self.extra_loss) if self.extra_weight else (self.style_loss,)

    @property
    def bounded(self) -> bool:
        """Whether pixels are clamped to [0, 1] at every step."""
        return self.bounds == "on"

    @property
    def large_gradients(self) -> bool:
        """Whether errors are sums of squares or of raw matrices, whose gradients exceed the range of float16."""
        return "sum" in (self.content_error, self.style_error) or self.gram_norm.startswith("raw")

    def expanded(self, styles: int) -> tuple[tuple[int, float], ...]:
        """Return the index of each measured style picture, of `styles`, and its size relative to the scale.

        One style at several sizes is measured several times. Raises `SettingsError` if `style_scale` has another number of
        values.
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
        """Return the weights of `styles` style pictures, which sum to 1.

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
