"""Sweep folders written by hand, and their reports read back."""

import base64
import csv
import io
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

CONFIG = {
    "beta": 1.0,
    "posterior": "gaussian",
    "model": {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 16, "posterior": "gaussian"},
    "reconstruction": {"_target_": "vae_lightning.losses.SquaredError"},
    "recognizer": None,
    "data": {"image_size": 32, "color": "rgb", "crop": 148},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for name, value in changes.items():
        both[name] = merged(both[name] or {}, value) if isinstance(value, dict) else value
    return both


def write_job(sweep: Path, overrides: list[str], metrics: Mapping[str, float] | None = None, **config: Any) -> Path:
    """A run folder of words and numbers, without a checkpoint. `metrics=None` leaves it interrupted."""
    folder = sweep / ",".join(overrides)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "data=faces"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(CONFIG, config)))
    write_status(folder, "interrupted" if metrics is None else "done")
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def write_recognizer(
    sweep: Path, overrides: list[str], scores: Mapping[str, float] | None = None, target: str = "attributes"
) -> Path:
    """As `write_job`, of a network that reads faces; the scores are of the test split."""
    metrics = None if scores is None else {f"test/{name}": value for name, value in scores.items()} | {"seconds": 90.0}
    return write_job(sweep, overrides, metrics, model=None, reconstruction=None, recognizer={"target": target})


def write_status(folder: Path, state: str, **others: Any) -> None:
    (folder / "status.json").write_text(json.dumps({"state": state, **others}))


def measured(elbo: float | None, mse: float, kl: float = 5.0, split: str = "test") -> dict[str, float]:
    values = {"mse": mse, "reconstruction_nats": 1000 * mse}
    if elbo is not None:
        values |= {"elbo_nats": elbo, "kl_nats": kl, "bits_per_dim": -elbo / 20}
    return {f"{split}/{name}": value for name, value in values.items()} | {"seconds": 90.0}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """What a browser would fetch or show of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    @property
    def pictures(self) -> list[tuple[str, np.ndarray]]:
        """Alt text and pixels of every image."""
        found = []
        for tag, attributes in self.elements:
            if tag == "img":
                kind, _, content = str(attributes["src"]).partition(",")
                assert kind == "data:image/png;base64"
                with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
                    found.append((attributes.get("alt") or "", np.asarray(picture)))
        return found
