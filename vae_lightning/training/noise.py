"""Standard normal noise that depends on its seeds alone: not on history, and not on what else draws noise."""

import torch
from jaxtyping import Float
from torch import Tensor


def seeded_noise(
    count: int, latent_dim: int, seeds: tuple[int, ...], device: torch.device
) -> Float[Tensor, "count latent"]:
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_003 + seed + 1) % 2**62
    generator = torch.Generator(device).manual_seed((mixed * 1_000_003 + 1) % 2**62)
    return torch.randn(count, latent_dim, generator=generator, device=device)


def noise_of_rows(
    first: int, count: int, block_size: int, latent_dim: int, seed: int, device: torch.device
) -> Float[Tensor, "count latent"]:
    """Noise of `count` rows of a split from `first` on, drawn in blocks of rows, so that no row's noise depends on
    which process evaluates it.
    """
    blocks = range(first // block_size, (first + count - 1) // block_size + 1)
    noise = torch.cat([seeded_noise(block_size, latent_dim, (seed, block), device) for block in blocks])
    return noise[first - blocks[0] * block_size :][:count]
