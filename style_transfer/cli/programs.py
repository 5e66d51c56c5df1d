"""How commands of other programs are written here: the rows of docs/coming-from.md, which `translate` applies.

The flags are those of neural-style (Johnson 2015), neuralart (Tai 2015), fzliu/style-transfer (Liu 2015), style-transfer-pytorch
(Crowson 2021) and their descendants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

Flags = Mapping[str, str]
"""The values of a command's flags by flag; a switch has an empty one."""


@dataclass(frozen=True)
class Row:
    """A row of the guide: what the other program calls it, what stands for it here, and how the results compare.

    `here` is an example, a dash if there is no equivalent. A row with a `flag` translates it: `to` are words in which {} stands
    for the value, with spaces in place of commas, or a function of the value and of all flags that returns words. With a `value`
    it translates only that one. A `switch` has no value. A row without `to` drops its flag.
    """

    theirs: str
    here: str
    result: str
    flag: str = ""
    to: str | Callable[[str, Flags], str] = ""
    value: str | None = None
    switch: bool = False


MODULES: Final = {
    "conv1_1": 2, "conv1_2": 5, "conv2_1": 8, "conv2_2": 11, "conv3_1": 14, "conv3_2": 17, "conv3_3": 19, "conv3_4": 21,
    "conv4_1": 24, "conv4_2": 27, "conv4_3": 30, "conv4_4": 32, "conv5_1": 35,
}  # fmt: skip
"""The number of each convolution among the modules of neural-style's network, which begins with the total variation and has the
losses of its default layers as modules; a ReLU and the losses behind it belong to the convolution here."""
MODEL_FILES: Final = {
    "nin": "--network nin", "vgg16": "--network vgg16-caffe", "vgg_ilsvrc_16": "--network vgg16-caffe",
    "normalised": "--network vgg19-normalized", "normalized": "--network vgg19-normalized",
}  # fmt: skip
"""Parts of the names of weight files, and the network that they hold."""


def _devices(value: str, flags: Flags) -> str:
    names = value.replace(",", " ").split()
    return "--devices " + " ".join("cpu" if name in ("-1", "c") else f"cuda:{name}" for name in names)


def _split_layers(value: str, flags: Flags) -> str:
    starts = [int(number) for number in value.split(",") if number.isdecimal()]
    layers = [next((layer for layer, number in MODULES.items() if number >= start), "conv5_1") for start in starts]
    return f"--sharding layers --split {','.join(layers)}"


def _per_content_layer(value: str, flags: Flags) -> str:
    return f"-cw {float(value) * (flags.get('-content_layers', '').count(',') + 1):g}"


def _per_style_layer(value: str, flags: Flags) -> str:
    layers = flags.get("-style_layers")
    return f"--style-factor {float(value) * (5 if layers is None else layers.count(',') + 1):g}"


def _json_every(value: str, flags: Flags) -> str:
    return f"--json --json-every {value}" if value != "0" else ""


def _saved_every(value: str, flags: Flags) -> str:
    output = PurePosixPath(flags.get("-output_image", "out.png"))
    pattern = output.with_name(output.stem + "_{iteration:d}" + output.suffix)
    return f"--save-every {value} --save-iterates {pattern}" if value != "0" else ""


def _model_file(value: str, flags: Flags) -> str:
    name = PurePosixPath(value).name.lower()
    return " ".join([*(words for part, words in MODEL_FILES.items() if part in name), f"--weights {value}"])


def _seed(value: str, flags: Flags) -> str:
    return f"-r {value}" if int(value) >= 0 else ""


def _three_steps(value: str, flags: Flags) -> str:
    return f"-ii {3 * int(value)}"


def _sgd(value: str, flags: Flags) -> str:
    return f"--optimizer sgd --step-size {'5e-2' if flags.get('--model') == 'inception' else '1e-3'} --bounds off -ii 500"


def _web_page(value: str, flags: Flags) -> str:
    return "--web" if value != "0" else ""


def _frames_folder(value: str, flags: Flags) -> str:
    return f"--save-every 15 --save-iterates {PurePosixPath(value) / '{number}.jpg'}"


def _quarter(value: str, flags: Flags) -> str:
    return f"--style-factor {float(value) / 4:g}"


# fmt: off
TABLES: Final[dict[str, tuple[Row, ...]]] = {
    "style-transfer-pytorch": (
        Row("(no flags, 2021)", "--preset style-transfer-pytorch",
            "equal, except that the average starts anew at each scale; without a preset the defaults keep more of the "
            "photograph"),
        Row("(no flags, 2023)", "--preset style-transfer-pytorch-2023",
            "equal, except that matrix square roots are exact and the average starts anew at each scale"),
        Row("`content styles...`", "", "equal"),
        Row("`-o`, `--output`", "-o out.tif", "equal; PNG has 16 bits too"),
        Row("`-sw`, `--style-weights`", "-sw 2", "equal"),
        Row("`--devices`", "--devices cpu",
            "equal; any number of devices, which share the tiles, or with `--sharding layers` the layers"),
        Row("`-r`, `--random-seed`", "-r 1", "other random numbers"),
        Row("`-cw`, `--content-weight`", "-cw 0.015", "equal"),
        Row("`-tw`, `--tv-weight`", "-tw 2", "equal"),
        Row("`--optimizer adam`", "--optimizer adam", "equal"),
        Row("`--optimizer lbfgs`", "--optimizer lbfgs", "equal; each step counts as one"),
        Row("`-ms`, `--min-scale`", "-ms 128", "equal"),
        Row("`-s`, `--end-scale`", "-s 512+", "equal"),
        Row("`-i`, `--iterations`", "-i 500", "equal"),
        Row("`-ii`, `--initial-iterations`", "-ii 1000", "equal"),
        Row("`--save-every`", "--save-every 50", "equal"),
        Row("`-ss`, `--step-size`", "-ss 0.02", "equal"),
        Row("`-ad`, `--avg-decay`", "-ad 0.99", "equal"),
        Row("`--init`", "--init style_stats", "equal; a picture file is possible, too"),
        Row("`--style-scale-fac`", "--style-scale-fac 1", "equal"),
        Row("`--style-size`", "--style-size 512", "equal"),
        Row("`--pooling`", "--pooling max", "equal; without a preset the default is `average`"),
        Row("`--proof`", "--proof cmyk.icc", "equal"),
        Row("`--web`", "--web",
            "a different page, for this machine only; the address that is printed has a token, without which `/image` "
            "answers 401"),
        Row("`--host`, `--port`, `--browser`", "--host 127.0.0.1 --port 8080 --browser", "equal, except for the default host"),
    ),
    "neural-style": (
        Row("(no flags)", "--preset neural-style", "equal"),
        Row("`-style_image a.jpg,b.jpg`", "", "styles follow the content on the command line"),
        Row("`-style_blend_weights`", "--preset neural-style -sw 1", "equal", "-style_blend_weights", "-sw {}"),
        Row("`-content_image`", "", "the first picture on the command line"),
        Row("`-image_size`", "--preset neural-style -s 512",
            "equal; bicubic instead of bilinear; a small style is enlarged only by `--style-enlarge`", "-image_size", "-s {}"),
        Row("`-gpu 0,1`", "--devices cpu", "equal; tiles are shared among any number of devices", "-gpu", _devices),
        Row("`-multigpu_strategy`", "--sharding layers --split relu2_1 --devices cpu cpu",
            "equal; splits are named by layers: see below", "-multigpu_strategy", _split_layers),
        Row("`-content_weight W`", "--preset neural-style -cw 5",
            "equal: W for each content layer, which share it here; its command for NIN, with four, needs -cw 40",
            "-content_weight", _per_content_layer),
        Row("`-style_weight W`", "--preset neural-style --style-factor 500",
            "equal: W times the number of style layers, here 100 times 5", "-style_weight", _per_style_layer),
        Row("`-tv_weight`", "--preset neural-style -tw 0.001", "equal; the displayed loss includes it", "-tv_weight", "-tw {}"),
        Row("`-num_iterations`", "--preset neural-style -ii 1000", "equal", "-num_iterations", "-ii {}"),
        Row("`-normalize_gradients`", "--preset neural-style --normalize-gradients", "equal", "-normalize_gradients",
            "--normalize-gradients", switch=True),
        Row("`-init random`", "--preset neural-style --init network_mean", "equal, with other random numbers", "-init",
            "--init network_mean", "random"),
        Row("`-init image`", "--preset neural-style --init content", "equal", "-init", "--init content", "image"),
        Row("`-init_image`", "--preset neural-style --init content.png", "equal", "-init_image", "--init {}"),
        Row("`-optimizer lbfgs`", "--preset neural-style --optimizer lbfgs", "equal", "-optimizer", "--optimizer lbfgs",
            "lbfgs"),
        Row("`-optimizer adam -learning_rate 10`", "--preset neural-style --optimizer adam --step-size 10 --bounds off",
            "equal", "-optimizer", "--optimizer adam --step-size 10 --bounds off", "adam"),
        Row("`-learning_rate`", "--preset neural-style --optimizer adam --step-size 10",
            "equal; pixels stay valid unless `--bounds off` is given", "-learning_rate", "--step-size {}"),
        Row("`-lbfgs_num_correction`", "--preset neural-style --lbfgs-history 100", "equal", "-lbfgs_num_correction",
            "--lbfgs-history {}"),
        Row("`-print_iter`", "--json --json-every 50", "one line for every 50th iteration; without it a progress bar",
            "-print_iter", _json_every),
        Row("`-save_iter`", "--save-every 100 --save-iterates out_{iteration:d}.png",
            "equal; without `--save-iterates` the output itself is overwritten", "-save_iter", _saved_every),
        Row("`-output_image`", "-o out.png", "equal", "-output_image", "-o {}"),
        Row("`-style_scale`", "--preset neural-style --style-scale 1.5",
            "equal, with `--style-enlarge` for a small style too; one value for each style", "-style_scale",
            "--style-scale {}"),
        Row("`-original_colors 1`", "--preset neural-style --color content --color-space yuv",
            "equal, except that colours outside sRGB lose chroma instead of changing hue; Oklab without `--color-space`",
            "-original_colors", "--color content --color-space yuv", "1"),
        Row("`-pooling max`", "--preset neural-style --pooling max", "equal", "-pooling", "--pooling max", "max"),
        Row("`-pooling avg`", "--preset neural-style --pooling mean", "equal; `average` is rescaled", "-pooling",
            "--pooling mean", "avg"),
        Row("`-proto_file`", "—", "networks are built in: `--network vgg19-caffe`, `vgg16-caffe`, `nin` and others"),
        Row("`-model_file`", "--preset neural-style --weights w.caffemodel", "equal", "-model_file", _model_file),
        Row("`-backend`", "—", "torch chooses"),
        Row("`-cudnn_autotune`", "—", "torch chooses", "-cudnn_autotune", switch=True),
        Row("`-seed`", "-r 1", "other random numbers", "-seed", _seed),
        Row("`-content_layers`", "--preset neural-style --content-layers relu4_2", "equal", "-content_layers",
            "--content-layers {}"),
        Row("`-style_layers`", "--preset neural-style --style-layers relu1_1 relu2_1",
            "equal; `--style-factor` is shared by all of them", "-style_layers", "--style-layers {}"),
        Row("NIN", "--preset neural-style --network nin",
            "equal layers; white is at 255 in preprocessing unless `--preprocessing neural-style` is given"),
        Row("`starry_stanford.sh`",
            "--preset neural-style --scales 256 512 1024 2048 3620 --steps 1000 500 200 100 50 --lbfgs-history 100 100 "
            "100 100 5", "equal scales, steps and histories; each scale continues with the picture of the one before"),
    ),
    "neuralart": (
        Row("`--model vgg`", "--preset neuralart", "equal", "--model", "", "vgg"),
        Row("`--model inception`", "--preset neuralart-inception", "equal, except that pooling rounds sizes up as in Caffe",
            "--model", "--preset neuralart-inception", "inception"),
        Row("`--style`, `--content`", "", "the pictures come first on the command line"),
        Row("`--style_factor`", "--preset neuralart --style-factor 2e9", "equal", "--style_factor", "--style-factor {}"),
        Row("`--num_iters N`", "--preset neuralart -ii 1500", "equal: each of its iterations is three steps", "--num_iters",
            _three_steps),
        Row("`--size`", "--preset neuralart -s 500", "equal; 0 is the size of the photograph", "--size", "-s {}"),
        Row("`--display_interval`", "--web", "a live page instead of a window", "--display_interval", _web_page),
        Row("`--smoothness`", "--preset neuralart -tw 0.005", "equal; the displayed loss includes it", "--smoothness",
            "-tw {}"),
        Row("`--init image`", "--preset neuralart --init content", "equal", "--init", "--init content", "image"),
        Row("`--init random`", "--preset neuralart --init noise --noise-deviation 0.1", "equal, with other random numbers",
            "--init", "--init noise --noise-deviation 0.1", "random"),
        Row("`--backend`", "—", "torch chooses"),
        Row("`--optimizer lbfgs`", "--preset neuralart --optimizer lbfgs", "equal", "--optimizer", "--optimizer lbfgs",
            "lbfgs"),
        Row("`--optimizer sgd`", "--preset neuralart --optimizer sgd --step-size 1e-3 --bounds off -ii 500",
            "equal; with inception the step size is 5e-2", "--optimizer",
            _sgd, "sgd"),
        Row("`--cpu`", "--devices cpu", "equal, for both networks", "--cpu", "--devices cpu", switch=True),
        Row("`--output_dir`", "--save-every 5 --save-iterates frames/{number}.jpg",
            "numbered from 1. An iteration of neuralart is three steps here: 15 for every fifth iteration; neuralart "
            "also writes each of its first twenty", "--output_dir", _frames_folder),
    ),
    "fzliu/style-transfer": (
        Row("`-s`, `-c`", "", "the content comes first, then the styles"),
        Row("`-g -1`", "--devices cpu", "equal", "-g", _devices),
        Row("`-m vgg16`", "--preset fzliu", "equal", "-m", "--weights VGG_ILSVRC_16_layers.caffemodel", "vgg16"),
        Row("`-m vgg19`", "--preset fzliu --network vgg19-caffe --preprocessing fzliu", "equal", "-m",
            "--network vgg19-caffe --preprocessing fzliu --weights VGG_ILSVRC_19_layers.caffemodel", "vgg19"),
        Row("`-m googlenet`",
            "--preset fzliu --network googlenet --lrn off --content-layers conv2/relu_3x3 inception_3a/output "
            "--content-layer-weights 2e-4 0.9998", "equal", "-m",
            "--network googlenet --lrn off --content-layers conv2/relu_3x3 inception_3a/output --content-layer-weights "
            "2e-4 0.9998 --weights bvlc_googlenet.caffemodel", "googlenet"),
        Row("`-m caffenet`", "--preset fzliu --network caffenet", "equal", "-m",
            "--network caffenet --weights bvlc_reference_caffenet.caffemodel", "caffenet"),
        Row("`-i content`", "--preset fzliu --init content", "equal", "-i", "--init content", "content"),
        Row("`-i mixed`", "--preset fzliu --init style --init-blend 0.95",
            "equal; the style may have another shape, and is stretched then", "-i", "--init style --init-blend 0.95", "mixed"),
        Row("`-i -1`", "--preset fzliu --init noise --noise pink",
            "also pink noise, scaled by its deviation instead of its extremes", "-i", "--init noise --noise pink", "-1"),
        Row("`-i 0`", "--preset fzliu --init noise --noise white", "the same", "-i", "--init noise --noise white", "0"),
        Row("`-r R`", "--preset fzliu --style-factor 2500", "equal: R / 4", "-r", _quarter),
        Row("`-n`", "--preset fzliu -ii 512", "steps are evaluations; its iterations have one or more of them", "-n", "-ii {}"),
        Row("`-l`", "--preset fzliu -s 512", "equal, except for pictures whose short side would be less than 224", "-l",
            "-s {}"),
        Row("`-v`", "--json", "one line per iteration", "-v", "--json", switch=True),
        Row("`-o`", "-o out.jpg", "equal", "-o", "-o {}"),
    ),
    "neural-style-pt and other descendants": (
        Row("neural-style-pt: `-model_file vgg19-d01eb7cb.pth`",
            "--preset neural-style --preprocessing caffe --weights w.pth",
            "similar: its total variation sums absolute differences, its white is at 256 or 255 depending on the "
            "version, and its learning rate is 1"),
        Row("neural-style-pt: `-gpu c,0 -multidevice_strategy`", "--devices cpu cpu",
            "any combination of devices, which share the tiles"),
        Row("neural-style-pt: `-init_image`, `-content_layers` and others",
            "--preset neural-style --init content.png --content-layers relu4_2", "as in neural-style"),
        Row("genekogan: covariance matrices", "--style-loss covariance", "centred Gram matrices"),
        Row("genekogan, maua-style: histogram loss", "--extra-loss histogram --extra-weight 1",
            "distances of cumulative histograms instead of remapped features"),
        Row("genekogan: histogram loss within masks", "--style-loss histogram --content-mask left.png",
            "histograms of each region, at every scale"),
        Row("genekogan: colour-coded segmentation", "--content-mask colours.png --style-mask colours.png",
            "regions of the same colours belong together"),
        Row("maua-style: histogram matching at each scale", "--color match-style --color-match histogram",
            "once, before the first scale"),
        Row("titu1994: shifted activations", "--style-loss shifted-gram",
            "Gram matrices of features less 1, without its chains of layers"),
        Row("titu1994, cysmith: style masks", "--content-mask left.png --style-mask part.png",
            "guided Gram matrices, at every scale"),
        Row("anishathalye: `--style-layer-weight-exp`", "--style-layer-weights 1 2 4 8 16", "any weights"),
        Row("cysmith: `--init_img_type style`", "--init style", "equal; with several styles their average"),
        Row("cysmith: `--init_img_type random --noise_ratio 0.3`", "--init noise --init-blend 0.7",
            "equal, except for the distribution of the noise"),
        Row("cysmith: `--original_colors --color_convert_type lab`", "--color content --color-space lab",
            "also `yuv`, `luv` and Oklab"),
        Row("cysmith: `--style_imgs_weights`", "-sw 1", "equal"),
        Row("anishathalye: `--preserve-colors`", "--color content --color-space yuv", "equal, except for colours outside sRGB"),
        Row("anishathalye: `--style-scales`", "--style-scale 1.5", "equal; one value for each style"),
        Row("anishathalye: `--checkpoint-output`, `--checkpoint-iterations`",
            "--save-iterates f/{number}.png --save-every 10", "equal"),
        Row("titu1994: luminance with masks, moritztng: covariance match", "--color match-style",
            "the styles get the mean and covariance of the content, by optimal transport"),
        Row("albarji: alpha, products of contents and styles", "--alpha keep --grid --each content.png -o folder",
            "a labelled sheet with `--contact-sheet`"),
        Row("NeuralImageSynthesis: luminance only", "--color luminance", "similar, in Oklab"),
        Row("cysmith: `--content_layer_weights`", "--content-layers relu4_2 relu3_1 --content-layer-weights 3 1",
            "equal, normalised to sum 1"),
        Row("scaling_painting_style_transfer: mean and deviation", "--extra-loss mean-std --extra-weight 1000",
            "weights have another meaning, since Gram errors are scaled"),
        Row("gordicaleksa: strong Wolfe", "--optimizer lbfgs --line-search strong-wolfe", "equal conditions"),
        Row("crowsonkb/style_transfer: style at several scales", "--style-scale 0.5 1 2", "averages of the statistics"),
    ),
}
# fmt: on
"""The rows of each program, by its name."""
