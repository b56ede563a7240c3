"""Fills the README's table of models from trained runs: `python docs/pictures.py FOLDER`.

FOLDER/<name>/ is a run on rendered faces for each name in ROWS; the rows of others stay as they are.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_lightning import load_run
from vae_lightning.models.pixels import to_uint8

ROWS = {  # name of the run -> how the README's row says it
    "conv": "model=conv",
    "linear": "model=linear",
    "residual": "model=residual",
    "patch": "experiment=fast",
    "ladder": "experiment=ladder",
    "ladder_edit": "experiment=ladder_edit",
    "beta_4": "beta=4",
    "warmup": "beta_schedule=warmup",
    "cyclical": "beta_schedule=cyclical",
    "capacity": "beta=10 beta_schedule=capacity",
    "free_bits": "kl=free_bits",
    "bce": "reconstruction=bce",
    "absolute_error": "reconstruction=absolute_error",
    "gaussian_per_pixel": "reconstruction=gaussian_per_pixel",
    "gaussian_shared": "reconstruction=gaussian_shared",
    "gaussian_discretised": "reconstruction=gaussian_discretised",
    "logistic": "reconstruction=logistic",
    "logistic_mixture": "reconstruction=logistic_mixture",
    "deterministic": "posterior=deterministic",
    "adamax": "optimizer=adamax",
}
README = Path(__file__).parents[1] / "README.md"
PICTURES = Path(__file__).parent / "images/rows"
FACES = 4
GAP = 16  # pixels between reconstructions and samples


def strip(run: Path) -> Image.Image:
    """Four test faces above their reconstructions; beside them eight samples, or white where there is no prior."""
    vae = load_run(run, device="cpu")
    faces = vae.held_out_faces("test", FACES)
    pairs = torch.cat([faces, as_bytes(vae.reconstruct(faces))])
    samples = as_bytes(vae.sample(2 * FACES, seed=0)) if vae.model.has_prior else torch.full_like(pairs, 255)
    picture = np.pad(block(samples), ((0, 0), (GAP, 0), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate([block(pairs), picture], axis=1))


def block(images: Tensor) -> np.ndarray:
    """uint8 (2 * FACES, 3, height, width) -> (2 * height, FACES * width, 3), without gaps."""
    rows = images.unflatten(0, (2, FACES)).permute(0, 3, 1, 4, 2)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1, 3).numpy()


def as_bytes(images: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8."""
    return to_uint8(images, (0.0, 1.0))


def main(runs: Path) -> None:
    """Writes a picture for each finished run, and its two cells into the README."""
    PICTURES.mkdir(exist_ok=True)
    text = README.read_text(encoding="utf-8")
    for name, setting in ROWS.items():
        if not (runs / name / "metrics.json").is_file():
            print(f"{name}: not finished, its row stays as it is")  # noqa: T201
            continue
        strip(runs / name).save(PICTURES / f"{name}.jpg", quality=85)
        bits = json.loads((runs / name / "metrics.json").read_text(encoding="utf-8")).get("test/bits_per_dim")
        cells = f"![{setting}](docs/images/rows/{name}.jpg) | {'–' if bits is None else f'{bits:.2f}'}"
        text, found = re.subn(
            rf"(\| `{re.escape(setting)}` \|[^|]*\| ).* \|$", rf"\g<1>{cells} |", text, flags=re.MULTILINE
        )
        assert found == 1, f"README.md has no row for {setting}"
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
