"""Which classes a run's configuration may name, and parts that could not be loaded again."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import MODEL
from torch import nn

import vae_lightning.losses
from vae_lightning.losses import ReconstructionLoss, SquaredError
from vae_lightning.models import Autoencoder, ConvVAE
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.parts import build_part, check_can_be_loaded, find_class

NEW_TERM = """
from vae_lightning.losses import ReconstructionLoss

class Cubed(ReconstructionLoss):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, prediction, images):
        return self.scale * (prediction.mean - images).abs().pow(3).sum(dim=(1, 2, 3))
"""


@pytest.fixture
def new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module of a file that was put into the room of the losses."""
    (tmp_path / "cubed.py").write_text(NEW_TERM)
    monkeypatch.setattr(vae_lightning.losses, "__path__", [*vae_lightning.losses.__path__, str(tmp_path)])
    yield "vae_lightning.losses.cubed"
    sys.modules.pop("vae_lightning.losses.cubed", None)
    vars(vae_lightning.losses).pop("cubed", None)


def test_a_new_file_in_a_room_is_found(new_file: str) -> None:
    term = build_part(ReconstructionLoss, {"_target_": f"{new_file}.Cubed", "scale": 2.0})
    assert (type(term).__name__, term.scale) == ("Cubed", 2.0)
    check_can_be_loaded(term, ReconstructionLoss, {"_target_": f"{new_file}.Cubed", "scale": 2.0})


def test_a_class_is_found_by_both_of_its_names() -> None:
    assert find_class(Autoencoder, "vae_lightning.models.ConvVAE") is ConvVAE
    assert find_class(Autoencoder, "vae_lightning.models.conv.ConvVAE") is ConvVAE


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "test_parts.Foreign", "ConvVAE", "", None, 3, ["vae_lightning.models.ConvVAE"]),
        *("vae_lightning.models.Autoencoder", "vae_lightning.models.base.Autoencoder"),  # abstract
        *(
            "vae_lightning.models.conv",
            "vae_lightning.models.conv.nn.Linear",
        ),
        *("vae_lightning.models.conv.torch", "vae_lightning.models..ConvVAE", "vae_lightning.models.os.system"),
        *("vae_lightning.losses.SquaredError", "vae_lightning.models.missing.ConvVAE", "vae_lightning.models."),
    ],
)
def test_other_classes_are_refused(target: object) -> None:
    with pytest.raises(RunError, match=r"only subclasses of Autoencoder in vae_lightning\.models may be built"):
        find_class(Autoencoder, target)


def test_nothing_outside_the_room_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in ("antigravity.Model", "vae_lightning.models.antigravity.Model", "vae_lightning.models.sys.modules"):
        with pytest.raises(RunError):
            find_class(Autoencoder, target)
    assert "antigravity" not in sys.modules


class Foreign(SquaredError):  # noqa: N818 - the error is the loss
    pass


class Forgets(ConvVAE):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.shift = torch.zeros(1)


class Grows(ConvVAE):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.extra = nn.Linear(2, 3 if torch.zeros(1).is_meta else 4)


@pytest.mark.parametrize(
    ("part", "reason"), [(Forgets, r"Forgets\.shift is a tensor"), (Grows, r"differ in name, shape or type")]
)
def test_a_model_that_could_not_be_loaded_again_is_refused(
    part: type[ConvVAE], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "__module__", "vae_lightning.models.conv")
    monkeypatch.setattr(vae_lightning.models.conv, part.__name__, part, raising=False)
    config = {**MODEL, "_target_": f"vae_lightning.models.conv.{part.__name__}"}
    model = build_part(Autoencoder, config)
    with pytest.raises(RunError, match=rf"{part.__name__} could not be loaded again.*{reason}"):
        check_can_be_loaded(model, Autoencoder, config, on_meta=True)


def test_a_term_from_outside_its_room_is_refused() -> None:
    with pytest.raises(RunError, match=r"Foreign could not be loaded again.*test_parts\.Foreign"):
        check_can_be_loaded(Foreign(), ReconstructionLoss, {"_target_": "test_parts.Foreign"})
