"""The KL of a hierarchical posterior, level by level, by one draw for each image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.models.levels import LatentLevel, level_slices
from vae_lightning.pictures.charts import COLORS, Chart, figure_pixels
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Row


@dataclass(frozen=True)
class DrawnKL:
    """KL to N(0, I) given what was drawn above, in nats, and the draws of the coarse levels."""

    per_latent: Float64[Tensor, " latent"]  # mean over images
    per_level: Float64[Tensor, "images levels"]
    coarse_latents: Float[Tensor, "images code"]

    def rows(self, levels: Sequence[LatentLevel], is_active: Bool[Tensor, " latent"]) -> list[Row]:
        """One row for each level, coarse first."""
        rows: list[Row] = []
        for level, part, nats in zip(levels, level_slices(levels), self.per_level.T.numpy(), strict=True):
            low, high = bootstrap_interval(nats)
            mean = float(nats.mean())
            rows.append(
                {
                    "level": level.name,
                    "latents": level.size,
                    "active_units": int(is_active[part].sum()),
                    "kl_nats": mean,
                    "kl_nats low": low,
                    "kl_nats high": high,
                    "kl_nats_per_latent": mean / level.size,
                }
            )
        return rows


def drawn_kl(subject: Subject) -> DrawnKL:
    """Of the subject's split."""
    parts = level_slices(subject.model.latent_levels)
    count = len(subject.rows(subject.split))
    total = torch.zeros(subject.model.latent_dim, dtype=torch.float64)
    per_level, coarse = [], []
    for _, draw in subject.draws(subject.noise(count, "KL by level")):
        nats = draw.kl_per_latent.double()
        total += nats.sum(0)
        per_level.append(torch.stack([nats[:, part].sum(1) for part in parts], dim=1))
        coarse.append(draw.latents[:, : subject.num_coarse].clone())
    return DrawnKL(total / count, torch.cat(per_level), torch.cat(coarse))


def draw_levels(kl_per_latent: Float[Tensor, " latent"], levels: Sequence[LatentLevel], title: str) -> Chart:
    """A bar for each level, and beside them each level's latents, largest KL first."""
    figure = Figure(figsize=(11, 3.6), dpi=100, layout="constrained", facecolor="white")
    bars, curves = figure.subplots(1, 2)
    names = [level.name for level in levels]
    nats = [float(kl_per_latent[part].sum()) for part in level_slices(levels)]
    colors = [COLORS[number % len(COLORS)] for number in range(len(levels))]
    drawn = bars.bar(names, nats, color=colors)
    bars.bar_label(drawn, [f"{each:.4g}" for each in nats], padding=2)
    bars.margins(y=0.12)
    bars.set(title=f"KL by level, {sum(nats):.1f} nats in all · {title}", xlabel="level, coarse first", ylabel="nats")
    for level, part, color in zip(levels, level_slices(levels), colors, strict=True):
        ordered = np.sort(kl_per_latent[part].numpy())[::-1]
        curves.plot(
            (np.arange(level.size) + 1) / level.size, ordered, ".-", markersize=3, color=color, label=level.name
        )
    curves.set(title="KL of each latent", xlabel="share of the level's latents, largest KL first", ylabel="nats")
    curves.legend()
    for axis in (bars, curves):
        axis.grid(axis="y", alpha=0.3)
    return figure_pixels(figure)
