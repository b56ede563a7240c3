"""Means over a batch that is split over several processes."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def mean_over_processes(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The mean of `value` over all processes of a training; in one process, or outside of training, `value` itself.

    Its gradient is that of the process's own `value`, because DDP averages gradients itself. Only for training steps,
    in which every process has the same number of batches; in evaluation a process could wait for ever.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    mean /= dist.get_world_size()
    return value + (mean - value.detach())
