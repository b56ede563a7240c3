"""Whether the decoded images lie in the memory of the device that trains, or in the host's."""

import torch

from vae_lightning.data.source import DataError

RESIDENCES = ("auto", "device", "host")
LARGEST_SHARE = 0.5  # of a device's free memory that `auto` fills with images; the rest is for the training


def choose_residence(asked: str, num_bytes: int, device: torch.device) -> str:
    """Gives "device" or "host". `auto` takes a device with memory of its own where the images leave enough of it free.

    Raises: DataError where "device" is asked for and the images cannot fit.
    """
    free = free_memory(device)
    if asked == "auto":
        return "device" if free is not None and num_bytes <= LARGEST_SHARE * free else "host"
    if asked == "device" and free is not None and num_bytes > free:
        raise DataError(
            f"data.residence=device: the images take {num_bytes / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB "
            "free. Take data.residence=host, a smaller data.image_size or data.train_size, or auto, which looks first."
        )
    return asked


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device that has a memory of its own; None for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None
