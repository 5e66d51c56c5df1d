"""What is known of networks by name, as data: their default layers and pooling, and which published files fit them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

VGG_STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclass(frozen=True)
class About:
    """What a user wants to know of a network, and what `Settings` take if nothing else is asked for.

    `files` are published weights that fit, each with its size and checksum where these are known; the first hexadecimal digits
    of a SHA-256 are the ones torchvision puts into file names. `download` says that torchvision has the weights. `magnitude` is
    how large activations are beside those of torchvision's networks: Caffe's get pictures whose deviation is 256 x 0.226 times
    theirs, and the normalised one's average is 1 instead of about 2.
    """

    what: str
    files: tuple[str, ...]
    content_layers: tuple[str, ...] = ("relu4_2",)
    style_layers: tuple[str, ...] = VGG_STYLE
    pooling: str = "max"
    download: bool = False
    magnitude: float = 1.0


_CAFFE = 256 * 0.226
_IMAGENET = "trained on ImageNet (ILSVRC 2012)"
_VGG19_CAFFE = "VGG_ILSVRC_19_layers.caffemodel (574671192 bytes, by the authors)"
_CONVERTED = "(the same numbers, converted; SHA-256 begins with {})"

NETWORKS: dict[str, About] = {
    "vgg19": About(
        f"VGG-19 (Simonyan and Zisserman 2014), torchvision's own training, {_IMAGENET}",
        ("vgg19-dcbb9e9d.pth of torchvision (548 MB, SHA-256 begins with dcbb9e9d), downloaded once if left out",),
        pooling="average",
        download=True,
    ),
    "vgg16": About(
        f"VGG-16, torchvision's own training, {_IMAGENET}",
        ("vgg16-397923af.pth of torchvision (528 MB, SHA-256 begins with 397923af), downloaded once if left out",),
        pooling="average",
        download=True,
    ),
    "vgg19-caffe": About(
        f"VGG-19, the authors' training in Caffe, {_IMAGENET}; BGR, 0 to 255, mean subtracted",
        (_VGG19_CAFFE, f"vgg19-d01eb7cb.pth {_CONVERTED.format('d01eb7cb')}", "vgg_conv.pth of Gatys et al. (BGR as well)"),
        magnitude=_CAFFE,
    ),
    "vgg19-normalized": About(
        f"vgg19-caffe with each channel's weights divided by its mean activation (Gatys et al. 2015), {_IMAGENET}",
        ("vgg_normalised.caffemodel of Gatys et al. (80 MB)",),
        magnitude=0.5,
    ),
    "vgg16-caffe": About(
        f"VGG-16, the authors' training in Caffe, {_IMAGENET}; BGR, 0 to 255, mean subtracted",
        ("VGG_ILSVRC_16_layers.caffemodel (528 MB, by the authors)", f"vgg16-00b39a1b.pth {_CONVERTED.format('00b39a1b')}"),
        magnitude=_CAFFE,
    ),
    "nin": About(
        f"Network in Network (Lin et al. 2013), {_IMAGENET}; small and frugal",
        ("nin_imagenet_conv.caffemodel (29 MB)", "nin_imagenet.pth (the same numbers, converted)"),
        ("relu7",),
        ("relu0", "relu3", "relu7", "relu12"),
        magnitude=_CAFFE,
    ),
    "googlenet": About(
        f"GoogLeNet (Szegedy et al. 2014) with local response normalisation (see --lrn), {_IMAGENET}",
        ("bvlc_googlenet.caffemodel (51 MB, SHA-1 405fc5acd08a3bb12de8ee5e23a96bec22f08204)",),
        ("inception_3a/output",),
        ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output", "inception_5a/output"),
        magnitude=_CAFFE,
    ),
    "caffenet": About(
        f"CaffeNet, AlexNet (Krizhevsky et al. 2012) with pooling before normalisation (see --lrn), {_IMAGENET}",
        ("bvlc_reference_caffenet.caffemodel (233 MB, SHA-1 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46)",),
        ("relu4",),
        ("relu1", "relu2", "relu3", "relu4", "relu5"),
        magnitude=_CAFFE,
    ),
    "alexnet": About(
        f"AlexNet of one tower (Krizhevsky 2014), torchvision's own training, {_IMAGENET}",
        ("alexnet-owt-7be5be79.pth of torchvision (233 MB, SHA-256 begins with 7be5be79), downloaded once if left out",),
        ("relu4",),
        ("relu1", "relu2", "relu3", "relu4", "relu5"),
        download=True,
    ),
    "squeezenet": About(
        f"SqueezeNet 1.1 (Iandola et al. 2016), torchvision's own training, {_IMAGENET}; the smallest",
        ("squeezenet1_1-b8a52dc0.pth of torchvision (5 MB, SHA-256 begins with b8a52dc0), downloaded once if left out",),
        ("fire4/concat",),
        ("relu_conv1", "fire2/concat", "fire4/concat", "fire6/concat", "fire8/concat"),
        download=True,
    ),
    "compact": About(
        "built in: VGG-19's layers with an eighth of the work, trained by this project to see what VGG-19 sees",
        ("compact.safetensors, part of the program",),
        pooling="average",
    ),
}
"""Networks by the name `Settings.network` has for them; `auto` is vgg19, or compact where its weights cannot be had."""


def about(network: str) -> About:
    """Return what is known of a network; of VGG-19 for `auto`."""
    return NETWORKS["vgg19" if network == "auto" else network]


def describe_networks() -> str:
    """Return the text of `--help-networks`."""
    blocks = []
    for name, known in NETWORKS.items():
        lines = [
            known.what,
            *(f"weights: {file}" for file in known.files),
            f"content layers: {' '.join(known.content_layers)}; style layers: {' '.join(known.style_layers)}",
            f"pooling: {known.pooling}",
        ]
        body = "\n".join(textwrap.fill(line, 110, initial_indent="    ", subsequent_indent="      ") for line in lines)
        blocks.append(f"{name}\n{body}")
    return "\n".join(blocks)
