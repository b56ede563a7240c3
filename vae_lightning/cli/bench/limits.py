"""The limits of the device: speeds of matrix products and of copies, measured in the same run as all else."""

from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31, "mps": 2**28}
SECONDS = 0.5  # of each measurement


@dataclass(frozen=True)
class Limits:
    """Measured limits, not those of a data sheet."""

    matrix_flops_per_second: float  # the best of two sizes, in the precision of the training
    copied_bytes_per_second: float  # within the device's memory; a byte that is read and written counts once


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Medians, on as many threads as PyTorch uses."""
    rates = []
    for size in MATRIX_SIZES[device.type]:
        matrix = torch.randn(size, size, device=device).to(dtype)
        rates.append(2 * size**3 / _seconds("matrix @ matrix", matrix=matrix))
    source = torch.zeros(COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    copied = len(source) / _seconds("target.copy_(source)", source=source, target=torch.ones_like(source))
    return Limits(max(rates), copied)


def _seconds(statement: str, **names: torch.Tensor) -> float:
    timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=SECONDS).median)
