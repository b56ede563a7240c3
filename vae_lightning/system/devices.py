"""Chooses the device that was asked for."""

import torch


def choose_device(name: str | torch.device) -> torch.device:
    """The device of that name; "auto" is the accelerator that PyTorch sees, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return there or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name}: not usable here ({reason}); try auto or cpu") from error
    return device
