"""Ways to add an attribute, by name, on the planted subject of the score tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import subject_of

from vae_lightning.editing import attributes
from vae_lightning.editing.attributes import edit
from vae_lightning.editing.judging.methods import Guidance, methods_for
from vae_lightning.latents.directions import DirectionFile
from vae_lightning.models import LinearVAE
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject

NAMES = ("Smiling", "Male")
ALL_LATENTS = """
from vae_lightning.editing.attributes.edit import AttributeEdit, Latents


class AllLatents(AttributeEdit):
    def __init__(self, subject: object, attribute: str) -> None:
        pass

    def __call__(self, latents: Latents, strength: float) -> Latents:
        return latents + strength
"""


class Reader(Recognizer):
    """Its first log-odds are the brightness of the picture."""

    def __init__(self) -> None:
        super().__init__(32, "gray")
        self.names = NAMES

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).mean(1, keepdim=True)

    def read_features(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([20 * (features - 0.5), 0 * features], 1)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Bright faces smile."""
    random = np.random.default_rng(0)
    smiles, males = random.random(200) < 0.5, random.random(200) < 0.5
    levels = 90 + 60 * smiles[:, None, None, None] + random.integers(0, 30, (200, 8, 8, 1))
    torch.manual_seed(0)
    model = LinearVAE(image_size=8, color="gray", latent_dim=4, hidden_dim=16).requires_grad_(False)
    made = subject_of(model, levels.astype(np.uint8))
    monkeypatch.setattr(type(made.data), "attribute_names", NAMES)
    labels = np.stack([smiles, males], axis=1)
    monkeypatch.setattr(made, "attributes", lambda split, at_most=None: labels)
    return made


def test_methods_move_by_their_strengths_and_add_or_take_away(subject: Subject, tmp_path: Path) -> None:
    file = DirectionFile(tmp_path / "directions.pt", "digest")
    adding = methods_for(subject, file, "Smiling", True, ["Male"])
    removing = methods_for(subject, file, "Smiling", False, ["Male"])
    assert set(adding) == {
        *("one latent", "means of 10 images", "means", "probe"),
        *("means, orthogonal to Male", "probe, orthogonal to Male"),
    }
    latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    trained = subject.posterior("train").mean.double()
    smiles = torch.from_numpy(subject.attributes("train")[:, 0])
    for name, method in adding.items():
        assert method(latents, 0.0).equal(latents)
        step = (method(latents, 1.0) - latents)[0].double()
        torch.testing.assert_close((method(latents, 2.0) - latents)[3].double(), 2 * step, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close((removing[name](latents, 1.0) - latents)[0].double(), -step, rtol=1e-4, atol=1e-6)
        along = trained @ (step / step.norm())
        assert along[smiles].mean() > along[~smiles].mean()
        length = along.std(correction=0).item()
        assert step.norm().item() == pytest.approx(length, rel=1e-3)


def test_a_file_is_an_edit(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all_latents.py").write_text(ALL_LATENTS)
    monkeypatch.setattr(attributes, "__path__", [*attributes.__path__, str(tmp_path)])
    monkeypatch.setattr(edit, "files_in", lambda folder: ("all_latents",))
    methods = methods_for(subject, DirectionFile(tmp_path / "directions.pt", "digest"), "Smiling", False)
    assert methods["all latents"](torch.zeros(2, 4), 2.0).equal(torch.full((2, 4), -2.0))
    assert edit.attribute_edit("all_latents", ())(subject, "Male").name == "all_latents"
    with pytest.raises(ValueError, match=r"all_latent\b.*did you mean all_latents"):
        edit.attribute_edit("all_latent", ("means",))


def test_guidance_is_followed_once_for_all_strengths(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    import vae_lightning.editing.judging.methods as methods

    original: Callable[..., object] = methods.guide
    monkeypatch.setattr(methods, "guide", lambda *arguments: followed.append(1) or original(*arguments))
    guidance = Guidance(subject, Reader().eval().requires_grad_(False), {"Smiling": True}, False)
    latents = subject.posterior("train").mean[:3]
    half, whole, beyond = (guidance(latents, strength) for strength in (0.5, 1.0, 2.0))
    assert len(followed) == 1
    torch.testing.assert_close(half - latents, (whole - latents) / 2)
    torch.testing.assert_close(beyond - latents, (whole - latents) * 2)
    brightness = [subject.decode(each).mean().item() for each in (latents, half, whole)]
    assert brightness == sorted(brightness)
    guidance(latents + 1, 1.0)
    assert len(followed) == 2
