"""Settings: defaults, checks and their words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from style_transfer.errors import SettingsError
from style_transfer.settings.settings import Settings, flag_name, options_of, parse_bytes


def test_defaults_are_style_transfer_pytorchs_but_for_pooling() -> None:
    s = Settings()
    assert (s.content_weight, s.tv_weight, s.optimizer, s.min_scale, s.end_scale) == (0.015, 2.0, "adam", 128, "512")
    assert (s.iterations, s.initial_iterations, s.step_size, s.avg_decay, s.init) == (500, 1000, 0.02, 0.99, "content")
    assert (s.style_scale_fac, s.style_size, s.random_seed, s.devices, s.pooling) == (1.0, None, 0, None, "average")


def test_default_layer_weights_are_powers_of_four_that_sum_to_one() -> None:
    weights = Settings().layer_weights
    assert list(weights) == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert [w * 341 for w in weights.values()] == pytest.approx([256, 64, 16, 4, 1])


def test_given_layer_weights_are_normalised() -> None:
    s = Settings(style_layers=("relu1_1", "relu3_1"), style_layer_weights=(1, 3))
    assert s.layer_weights == {"relu1_1": 0.25, "relu3_1": 0.75}


def test_blend_is_equal_or_normalised() -> None:
    assert Settings().blend(4) == (0.25,) * 4
    assert Settings(style_weights=(3, 1)).blend(2) == (0.75, 0.25)


NUMBERS = [name for name, (_, about) in options_of(Settings).items() if about.kind in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1e99, "7", True])
def test_every_number_refuses_what_is_no_number(name: str, value: object) -> None:
    about = options_of(Settings)[name][1]
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
        ({"iterations": "many"}, "--iterations must be a number or auto, not 'many'"),
        ({"initial_iterations": "auto"}, "--initial-iterations must be a number"),
        ({"iterations": "auto", "optimizer": "lbfgs"}, "--iterations auto goes with --optimizer adam, not lbfgs"),
        ({"iterations": None}, "--iterations needs a value"),
        ({"pooling": "avarage"}, "did you mean 'average'"),
        ({"end_scale": "12x"}, "--end-scale must be a number of pixels"),
        ({"end_scale": 0}, "--end-scale"),
        ({"style_weights": (0, 0)}, "--style-weights 0 0 sum to 0"),
        ({"style_weights": ()}, "--style-weights needs at least one value"),
        ({"style_layer_weights": (1, 2)}, "--style-layer-weights has 2 values for 5"),
        ({"style_layers": ("relu1_1", "relu1_1")}, "names a layer twice"),
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
        Settings(style_weights=(1, 1)).blend(3)
    with pytest.raises(SettingsError, match="at least one style"):
        Settings().blend(0)


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
