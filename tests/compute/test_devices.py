"""The choice of devices: those that compute wrong gradients or lack an operator are not used."""

from __future__ import annotations

import pytest
import torch

from style_transfer.compute import devices
from style_transfer.errors import DeviceError, SettingsError


def add_accelerator(monkeypatch: pytest.MonkeyPatch, error: float | Exception) -> None:
    """Make a machine with an accelerator whose gradients have an error, or raise one."""

    def gradient_error(device: torch.device, *_: object) -> float:
        if isinstance(error, Exception):
            raise error
        return error

    monkeypatch.setattr(devices, "available", lambda: ("mps:0", "cpu"))
    monkeypatch.setattr(devices, "gradient_error", gradient_error)


def test_a_device_with_wrong_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    add_accelerator(monkeypatch, 0.5)
    chosen, (note,) = devices.resolve(None)
    assert [device.type for device in chosen] == ["cpu"] and "mps:0 computes wrong gradients" in note
    with pytest.raises(DeviceError, match="wrong gradients"):
        devices.resolve(["mps:0"])
    add_accelerator(monkeypatch, 1e-6)
    assert devices.resolve(None)[0][0].type == "mps"


def test_a_device_without_an_operator_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    add_accelerator(monkeypatch, NotImplementedError("The operator 'aten::x' is not there for MPS"))
    chosen, (note,) = devices.resolve(None)
    assert [device.type for device in chosen] == ["cpu"] and "cannot be used (The operator 'aten::x'" in note


def test_processes_take_turns_in_the_devices_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.of_local_rank(None, 3) == devices.of_local_rank(["cpu"], 3) == torch.device("cpu")
    monkeypatch.setattr(devices, "available", lambda: ("cuda:0", "cuda:1", "cpu"))
    monkeypatch.setattr(devices, "problem", lambda device: None)
    assert [str(devices.of_local_rank(["cuda:1", "cuda"], rank)) for rank in range(3)] == ["cuda:1", "cuda:0", "cuda:1"]
    with pytest.raises(SettingsError, match="'cuda:9' is not available"):
        devices.of_local_rank(["cuda:9", "cpu"], 0)
