"""Layers that models share."""

import math

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
NORMS = ("none", "batch", "group")
MAX_GROUPS = 32


def make_activation(activation: str) -> nn.Module:
    if activation not in ACTIVATIONS:
        raise ValueError(f"model.activation={activation!r}: allowed are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]()


def make_norm(norm: str, channels: int) -> nn.Module:
    """Group normalisation takes up to 32 groups of at least two channels (Wu & He 2018, arXiv:1803.08494)."""
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(MAX_GROUPS, max(channels // 2, 1)), channels)
    raise ValueError(f"model.norm={norm!r}: allowed are {', '.join(NORMS)}")
