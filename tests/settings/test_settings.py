"""Settings: defaults, checks, what stays open, and what `resolve` fills in."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from style_transfer.errors import SettingsError
from style_transfer.registry import NETWORKS, OPTIMIZERS, STYLE_LOSSES
from style_transfer.settings import PRESETS, Resolved, Settings, flag_name, options_of, parse_bytes


def test_the_preset_has_the_defaults_of_style_transfer_pytorch() -> None:
    s = Settings(preset="style-transfer-pytorch").resolve()
    assert (s.content_weight, s.tv_weight, s.optimizer, s.min_scale, s.end_scale) == (0.015, 2.0, "adam", 128, "512")
    assert (s.iterations, s.initial_iterations, s.step_size, s.avg_decay, s.init) == (500, 1000, 0.02, 0.99, "content")
    assert (s.style_scale_fac, s.style_size, s.random_seed, s.devices, s.pooling) == (1.0, None, 0, None, "max")
    assert (s.content_layers, s.padding) == (("relu4_2",), "network")


def test_iterations_are_automatic_unless_a_choice_needs_numbers() -> None:
    assert Settings().resolve().iterations == "auto"
    for choice in ({"initial_iterations": 9}, {"step_size": 0.1}, {"avg_decay": 0.9}, {"optimizer": "lbfgs"}):
        assert Settings(**choice).resolve().iterations == 500  # type: ignore[arg-type]
    assert Settings(initial_iterations=9, iterations="auto").resolve().iterations == "auto"


def test_strength_sets_the_content_weight() -> None:
    weights = [Settings(strength=s / 10).resolve().content_weight for s in range(1, 11)]
    assert weights == sorted(weights, reverse=True) and weights[-1] == 0
    assert weights[7] == Settings().resolve().content_weight
    assert weights[2] * weights[6] == pytest.approx(weights[4] ** 2)  # equal steps from the middle
    assert Settings(strength=0.3, content_weight=7.0).resolve().content_weight == 7.0
    assert Settings(strength=0.3, preset="neural-style").resolve().content_weight == pytest.approx(5 * weights[2] / weights[7])


def test_strength_zero_leaves_the_photograph() -> None:
    s = Settings(strength=0.0).resolve()
    assert (s.style_factor, s.extra_weight, s.tv_weight) == (0, 0, 0) and s.min_scale > 512 and s.content_weight > 0


def test_default_layer_weights_are_powers_of_four_that_sum_to_one() -> None:
    weights = Settings().resolve().layer_weights
    assert list(weights) == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert [w * 341 for w in weights.values()] == pytest.approx([256, 64, 16, 4, 1])


def test_given_layer_weights_are_normalised() -> None:
    s = Settings(style_layers=("relu1_1", "relu3_1"), style_layer_weights=(1, 3)).resolve()
    assert s.layer_weights == {"relu1_1": 0.25, "relu3_1": 0.75}


def test_blend_is_equal_or_normalised() -> None:
    assert Settings().resolve().blend(4) == (0.25,) * 4
    assert Settings(style_weights=(3, 1)).resolve().blend(2) == (0.75, 0.25)


NUMBERS = [name for name, about in options_of(Settings).items() if about.kind in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1e99, "7", True])
def test_every_number_refuses_what_is_no_number(name: str, value: object) -> None:
    about = options_of(Settings)[name]
    if value == 1e99 and about.maximum is None and about.below is None:
        pytest.skip("any finite weight is allowed")
    with pytest.raises(SettingsError, match=flag_name(name)):
        Settings(**{name: (value,) if about.many else value})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"avg_decay": 1.0}, "--avg-decay must be below 1"),
        ({"step_size": 0}, "--step-size must be above 0"),
        ({"iterations": 2.5}, "--iterations must be a whole number"),
        ({"iterations": "many"}, "--iterations must be a whole number or auto, not 'many'"),
        ({"initial_iterations": "auto"}, "--initial-iterations must be a whole number, not 'auto'"),
        ({"iterations": "auto", "optimizer": "lbfgs"}, "--iterations auto does not go with --optimizer lbfgs"),
        ({"iterations": (1, 2)}, "--iterations takes one value, not (1, 2)"),
        ({"pooling": "avarage"}, "did you mean 'average'"),
        ({"end_scale": "12x"}, "--end-scale must be a number of pixels"),
        ({"end_scale": "0+"}, "--end-scale"),
        ({"scales": (256, 128)}, "--scales must grow from one to the next, not 256 128"),
        ({"style_weights": (0, 0)}, "--style-weights 0 0 sum to 0"),
        ({"style_weights": ()}, "--style-weights needs at least one value"),
        ({"style_layer_weights": (1, 2)}, "--style-layer-weights has 2 values for 5"),
        ({"style_layers": ("relu1_1", "relu1_1")}, "names a layer twice"),
        ({"style_loss": "gramm"}, "--style-loss 'gramm' is not one of covariance, gram, histogram"),
        ({"style_loss": "gramm"}, "did you mean 'gram'"),
        ({"network": "vgg91"}, "is not one of auto, alexnet"),
        ({"optimizer": "adamw"}, "did you mean 'adam'"),
        ({"gram_norm": "raw", "style_loss": "covariance"}, "--gram-norm raw does not go with --style-loss covariance"),
        ({"gram_norm": "raw", "extra_loss": "histogram", "extra_weight": 1}, "does not go with --extra-loss histogram"),
        ({"content_layers": ("relu1_1", "relu1_1")}, "--content-layers relu1_1 relu1_1 names a layer twice"),
        ({"color": "luminance", "color_space": "rgb"}, "--color luminance needs a lightness"),
        ({"split": "relu2_1"}, "--split goes with --sharding layers"),
        ({"tile": "0"}, "--tile must be auto, off or a number of pixels, not '0'"),
        ({"tile": "offf"}, "did you mean 'off'"),
        ({"memory": "lots"}, "--memory must be an amount of memory such as 6GB or 800MB, not 'lots'"),
        ({"memory": "0GB"}, "--memory must be"),
        ({"style_weights": (1e308, 1e308)}, "--style-weights"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blend_refuses_another_number_of_weights() -> None:
    with pytest.raises(SettingsError, match="--style-weights has 2 values for 3 style pictures"):
        Settings(style_weights=(1, 1)).resolve().blend(3)
    with pytest.raises(SettingsError, match="at least one style"):
        Settings().resolve().blend(0)


def test_settings_go_through_json() -> None:
    s = Settings(style_weights=(1, 2), end_scale=256, devices=("cpu",), style_size=99)
    assert Settings.from_dict(json.loads(json.dumps(s.as_dict()))) == s


def test_unknown_setting_is_refused_with_the_near_miss() -> None:
    with pytest.raises(SettingsError, match="unknown setting 'iteration'.*'iterations'"):
        Settings.from_dict({"iteration": 3})


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().pooling = "max"  # type: ignore[misc]


def test_numbers_and_lists_of_numpy_are_taken() -> None:
    settings = Settings(content_weight=np.float32(0.5), end_scale=np.int64(64), style_weights=np.array([1.0, 3.0]))
    assert (settings.content_weight, settings.end_scale, settings.style_weights) == (0.5, "64", (1.0, 3.0))
    assert type(settings.content_weight) is float
    assert Settings(style_weights=2.0).style_weights == (2.0,)


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 10**9), ("800 MB", 8 * 10**8), ("1.5GiB", 1610612736), ("512k", 512000), ("123", 123)]
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse_bytes("--memory", text) == count


# what stays open, and what it becomes


def test_a_replaced_choice_is_as_good_as_one_made_at_once() -> None:
    assert dataclasses.replace(Settings(), style_loss="wasserstein") == Settings(style_loss="wasserstein")
    assert dataclasses.replace(Settings(preset="neural-style"), preset=None) == Settings()
    assert dataclasses.replace(Settings(network="nin"), network="vgg16").resolve() == Settings(network="vgg16").resolve()


def test_nothing_is_chosen_until_the_user_does() -> None:
    assert Settings().chosen() == {}
    assert Settings(preset="neural-style", iterations=500).chosen() == {"preset": "neural-style", "iterations": 500}
    assert set(Settings().as_dict().values()) == {None}


@pytest.mark.parametrize("name", [None, *PRESETS])
def test_resolved_settings_are_concrete_and_go_through_json(name: str | None) -> None:
    found = Settings(preset=name).resolve()
    assert found.resolve() is found
    may_be_none = {"preset", "style_weights", "style_error", "style_scale", "style_size", "devices", "split", "memory", "weights",
        "content_layer_weights", "style_layer_weights", "scales", "steps"}  # fmt: skip
    assert {key for key, value in found.as_dict().items() if value is None} <= may_be_none
    assert Settings.from_dict(json.loads(json.dumps(found.as_dict()))).resolve() == found


def test_resolved_has_the_types_of_the_settings_but_for_what_is_open() -> None:
    assert list(Settings.__annotations__) == list(Resolved.__annotations__) == list(options_of(Settings))
    for name, kind in Resolved.__annotations__.items():
        assert Settings.__annotations__[name] == kind.removesuffix(" | None") + " | None"


def test_defaults_follow_from_the_style_loss_the_network_and_the_optimizer() -> None:
    usual, wasserstein = Settings().resolve(), Settings(style_loss="wasserstein").resolve()
    assert (usual.content_error, usual.tv_loss) == ("scaled", "axes")
    assert (wasserstein.content_error, wasserstein.tv_loss) == ("mean", "nine-point")
    assert Settings(style_loss="wasserstein", tv_loss="axes").resolve().tv_loss == "axes"
    assert Settings(network="nin").resolve().content_layers == ("relu7",)
    assert [Settings(optimizer=name).resolve().bounded for name in ("adam", "sgd", "lbfgs")] == [True, True, False]
    assert Settings(optimizer="lbfgs", bounds="on").resolve().bounded
    assert not Settings(preset="fzliu", bounds="auto").resolve().bounded
    assert Settings(preset="fzliu").resolve().bounded


def test_implementations_from_elsewhere_are_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (STYLE_LOSSES, OPTIMIZERS, NETWORKS):
        monkeypatch.setattr(registry, "_entries", dict(registry.items()))
    loss = SimpleNamespace(help="Toy", defaults={"content_error": "sum"}, gram_norms=("pixels",), random=False, sampled=False)
    STYLE_LOSSES.register("toy")(loss)
    OPTIMIZERS.register("toy")(
        SimpleNamespace(help="Toy", defaults={"momentum": 0.5, "bounds": "off"}, scheduled=True, tolerates_noise=False)
    )
    NETWORKS.register("toy")(SimpleNamespace(help="Toy", pooling="l2", content_layers=("a",), style_layers=("a", "b")))
    found = Settings(style_loss="toy", optimizer="toy", network="toy", iterations="auto").resolve()
    assert (found.content_error, found.bounded, found.momentum) == ("sum", False, 0.5)
    assert (found.pooling, found.style_layers) == ("l2", ("a", "b"))
    with pytest.raises(SettingsError, match="did you mean 'toy'"):
        Settings(network="tooy")
