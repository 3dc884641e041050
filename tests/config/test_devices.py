"""Devices, as far as they can be seen without one."""

from types import SimpleNamespace

import pytest
import torch

from transformer_lens import HookedTransformer
from transformer_lens.config import cuda_memory, devices


def test_mps_is_warned_of(monkeypatch):
    monkeypatch.delenv("TRANSFORMERLENS_ALLOW_MPS", raising=False)
    with pytest.warns(UserWarning, match="TRANSFORMERLENS_ALLOW_MPS=1"):
        devices.warn_if_mps("mps")
    monkeypatch.setenv("TRANSFORMERLENS_ALLOW_MPS", "1")
    devices.warn_if_mps("mps")


def test_moving_says_so_in_the_configuration(caplog):
    model = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 8, "d_vocab": 9})
    with caplog.at_level("INFO"):
        assert devices.move_to_and_update_config(model, torch.float64) is model
        devices.move_to_and_update_config(model, "cpu", print_details=False)
    assert (model.cfg.dtype, model.cfg.device, model.W_E.dtype) == (torch.float64, "cpu", torch.float64)
    assert caplog.messages == ["The model is now torch.float64."]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda():
    with pytest.raises(cuda_memory.NoCudaDeviceError, match="use device='cpu'"):
        cuda_memory.get_best_available_cuda_device()
    assert cuda_memory.determine_available_memory_for_available_devices(4) == []
    with pytest.raises(ValueError, match=r"cfg\.device is None"):
        cuda_memory.get_best_available_device(SimpleNamespace(device=None))


def test_layers_are_spread_in_order():
    cfg = SimpleNamespace(n_layers=5, n_devices=2, device="cuda")
    assert [cuda_memory.get_device_for_block_index(i, cfg).index for i in range(5)] == [0, 0, 0, 1, 1]
    assert cuda_memory.get_device_for_block_index(4, cfg, "cuda:2").index == 3
    assert cuda_memory.get_device_for_block_index(4, cfg, "cpu") == torch.device("cpu")
