"""What becomes of the latents of finer levels, which an edit of a hierarchical model does not move."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.models.levels import LatentLevel, level_slices
from vae_lightning.system.names import not_allowed

FINER = ("keep", "redraw", "mean")


def with_finer(
    latents: Float[Tensor, "*lead latent"], num_moved: int, finer: str = "keep", seed: int = 0
) -> Float[Tensor, "*lead latent"]:
    """Latents whose first `num_moved`, of the coarse levels, an edit moves; the finer ones as asked for.

    Args:
        latents: in units of their prior.
        num_moved: all latents of a flat model.
        finer: "keep" leaves them; "redraw" takes one draw of N(0, I), the same for all; "mean" takes 0, the mean of
            their prior given the levels above.
        seed: of the draw, which depends on nothing else.

    Raises:
        ValueError: another word, or there are no finer latents to change.
    """
    if finer not in FINER:
        raise ValueError(not_allowed("finer", finer, FINER))
    if finer == "keep":
        return latents
    count = latents.shape[-1] - num_moved
    if not count:
        raise ValueError(
            f"finer={finer}: all {num_moved} latents of this model are among those that are moved, so there are no "
            "finer ones: leave it out, or move fewer levels of a hierarchical model"
        )
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed)) if finer == "redraw" else torch.zeros(1)
    changed = latents.clone()
    changed[..., num_moved:] = drawn.to(latents)
    return changed


def finer_words(levels: Sequence[LatentLevel], num_moved: int, finer: str = "keep", seed: int = 0) -> str:
    """For titles: ", finer levels (16x16, 32x32) kept"; nothing where there are none."""
    slices = level_slices(levels)
    names = [level.name for level, part in zip(levels, slices, strict=True) if part.start >= num_moved]
    if not names:
        return ""
    how = {"keep": "kept", "redraw": f"redrawn with seed {seed}", "mean": "at the mean of their prior"}
    return f", finer levels ({', '.join(names)}) {how[finer]}"
