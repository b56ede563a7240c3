"""Runs that nobody trained, on a tiny CelebA that is there: what `vae explore` shows in tests."""

import base64
import io
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import write_celeba
from PIL import Image
from tiny_runs import write_run

from vae_lightning.runs.layout import RECORD_KEY


def write_explored_run(folder: Path, root: Path, data_dir: Path, seed: int = 0, **model: Any) -> Path:
    """A run folder whose checkpoint knows where its data are."""
    write_run(folder, seed=seed, **model)
    (data_dir / "cache").mkdir(parents=True, exist_ok=True)  # where nothing lies yet, nothing is written
    file = folder / "checkpoints" / "best.ckpt"
    content = torch.load(file)
    record = content[RECORD_KEY]
    record["config"]["data"] |= {"root": str(root), "data_dir": str(data_dir)}
    record["data"]["root"] = str(root)
    torch.save(content, file)
    return folder


def write_explored_sweep(folder: Path) -> Path:
    """Two runs that can be shown, one of them with other sizes, and a failed one; data in `celeba` beside it."""
    root = folder.parent / "celeba"
    if not root.exists():
        write_celeba(root, 60)
    for number, (job, model) in enumerate({"beta=1": {}, "beta=4": {"image_size": 64, "latent_dim": 4}}.items()):
        write_explored_run(folder / job, root, folder.parent / "data", seed=number, **model)
    for job in ("beta=1", "beta=4", "beta=10"):
        (folder / job / ".hydra").mkdir(parents=True)
        (folder / job / ".hydra" / "overrides.yaml").write_text(f"- {job}\n")
    (folder / "beta=10" / "status.json").write_text('{"state": "failed", "reason": "out of memory"}')
    return folder


def pictures_in(html: str) -> list[np.ndarray]:
    """Pixels of all pictures, in their order."""
    return [pixels_of(uri) for uri in re.findall(r'<img src="([^"]+)"', html)]


def pixels_of(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
        return np.asarray(picture)


def code_in(html: str) -> str:
    found = re.search(r"<code>(.*)</code>", html, re.DOTALL)
    assert found
    return unescape(found[1])
