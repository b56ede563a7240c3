"""What each latent says about each factor, as one picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from vae_lightning.charts import figure_pixels

MOST_LATENTS = 40  # columns, so that their numbers can be read


def draw_heat_map(
    shares: Float[np.ndarray, "factors latents"],
    factors: Sequence[str],
    latents: Int64[np.ndarray, " latents"],
    title: str,
) -> UInt8[np.ndarray, "height width 3"]:
    """Factors by the latents that say most, each latent next to those of the same factor.

    Shares lie in 0 to 1; colours follow their square root, so that weak ones show. A disentangled
    code has one dark cell in each row and in each column.
    """
    most = np.sort(np.argsort(-shares.max(0), kind="stable")[:MOST_LATENTS])
    columns = most[np.lexsort((-shares[:, most].max(0), shares[:, most].argmax(0)))]
    size = (2.6 + 0.24 * len(columns), 1.6 + 0.24 * len(factors))
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    image = axis.imshow(shares[:, columns], cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), aspect="auto")
    axis.set_xticks(range(len(columns)), [str(latents[column]) for column in columns], rotation=90, fontsize=8)
    axis.set_yticks(range(len(factors)), list(factors), fontsize=8)
    axis.set_xlabel("latent")
    axis.set_title(title, fontsize=10, loc="left")
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02)
    return figure_pixels(figure)
