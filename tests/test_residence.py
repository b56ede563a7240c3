"""Where decoded images lie, without a device: its free memory is made up."""

import pytest
import torch

from vae_lightning.data import loading as residence
from vae_lightning.data.loading import choose_residence, free_memory
from vae_lightning.data.sources.source import DataError

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def gib_free(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(residence, "free_memory", lambda device: 2**31 if device == GPU else None)
    return 2**31


def test_auto_leaves_half_of_a_device_free(gib_free: int) -> None:
    assert choose_residence("auto", gib_free // 2, GPU) == "device"
    assert choose_residence("auto", gib_free // 2 + 1, GPU) == "host"
    assert choose_residence("auto", 1, CPU) == "host"


def test_what_is_asked_for_is_given_or_refused(gib_free: int) -> None:
    assert choose_residence("device", gib_free, GPU) == "device"
    assert choose_residence("device", 10 * gib_free, CPU) == "device"
    assert choose_residence("host", 10 * gib_free, GPU) == "host"
    with pytest.raises(DataError, match=r"images take 4\.0 GiB, cuda has 2\.0 GiB free\. Take data\.residence=host"):
        choose_residence("device", 2 * gib_free, GPU)


def test_only_devices_have_a_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 10))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 4)
    assert [free_memory(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [None, 7, 6]
