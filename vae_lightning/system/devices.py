"""Chooses the device that a model runs on."""

import torch


def choose_device(name: str | torch.device) -> torch.device:
    """The device of this name; "auto" is the accelerator that PyTorch finds, else the CPU.

    Raises:
        ValueError: this machine does not have the device.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name}: not usable here ({reason}); try auto or cpu") from error
    return device
