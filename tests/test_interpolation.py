"""Ways through latents, as tensors, as a run decodes them, and as pictures."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from stand_ins import noise_images, subject_of
from torch import Tensor

from vae_lightning.editing import interpolation
from vae_lightning.editing.interpolation import frames_through, interpolate
from vae_lightning.latents.paths import latent_path, latents_between
from vae_lightning.models import Autoencoder, LinearVAE
from vae_lightning.pictures.grids import tile
from vae_lightning.runs.layout import RECORD_KEY
from vae_lightning.runs.run import Run
from vae_lightning.runs.subject import Subject


class Copy(Autoencoder):
    """Its latents are the pixels, so that a straight line between latents is a cross-fade."""

    def __init__(self) -> None:
        super().__init__(image_size=8, color="gray", latent_dim=64, posterior="deterministic")

    def posterior_parameters(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return latents.logit().unflatten(1, (1, 8, 8))


@pytest.fixture
def subject() -> Subject:
    return subject_of(Copy(), noise_images(3), batch_size=4)


@pytest.fixture
def originals(subject: Subject) -> Tensor:
    return subject.pixels("test", np.arange(3)).clamp(1, 254)  # a sigmoid never reaches 0 or 255


def test_a_straight_way_passes_each_key_frame_once() -> None:
    key_frames = torch.tensor([[0.0, 0.0], [1.0, 10.0], [3.0, 10.0]])
    by_hand = [[0, 0], [0.5, 5], [1, 10], [2, 10], [3, 10]]
    assert latent_path(key_frames, 3).tolist() == by_hand
    assert latent_path(key_frames, 3, loop=True).tolist() == [*by_hand, [1.5, 5]]
    assert latent_path(key_frames[:2], 2, loop=True).tolist() == [[0, 0], [1, 10]]


def test_a_spherical_way_turns_evenly_while_its_length_changes_linearly() -> None:
    quarter = latents_between(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), 3, "spherical")
    np.testing.assert_allclose(quarter[0], [[1, 0], [math.sqrt(2), math.sqrt(2)], [0, 3]], atol=1e-6)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 6, generator=generator), 5 * torch.randn(4, 6, generator=generator)
    between = latents_between(first, second, 7, "spherical")
    lengths = np.linspace(first.norm(dim=1).numpy(), second.norm(dim=1).numpy(), 7, axis=1)
    np.testing.assert_allclose(between.norm(dim=2), lengths, rtol=1e-5)
    for way, start, end in zip(between, first.double().numpy(), second.double().numpy(), strict=True):
        arc = geometric_slerp(start / np.linalg.norm(start), end / np.linalg.norm(end), np.linspace(0, 1, 7))
        np.testing.assert_allclose(way / way.norm(dim=1, keepdim=True), arc, atol=1e-6)
    np.testing.assert_allclose(between[:, 0], first, atol=1e-6)
    np.testing.assert_allclose(between[:, -1], second, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0, 2.0], [2.0, 4.0]), ([1.0, 2.0], [1.0, 2.0]), ([0.0, 0.0], [1.0, 2.0]), ([0.0, 0.0], [0.0, 0.0])],
)
def test_a_spherical_way_without_an_angle_is_straight(first: list[float], second: list[float]) -> None:
    ends = torch.tensor([first]), torch.tensor([second])
    spherical = latents_between(*ends, 5, "spherical")
    np.testing.assert_allclose(spherical, latents_between(*ends, 5), rtol=1e-6)


@pytest.mark.parametrize("angle", [1e-4, math.pi - 1e-3])
def test_an_angle_whose_cosine_float32_cannot_tell_is_divided_evenly(angle: float) -> None:
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    between = latents_between(first, second, 5, "spherical")[0].double().numpy()
    angles = np.arctan2(between[:, 1], between[:, 0])
    np.testing.assert_allclose(angles, np.linspace(0, angle, 5), rtol=1e-3)


def test_opposite_latents_have_no_spherical_way() -> None:
    first = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    second = torch.stack([first[1], -3 * first[1]])
    with pytest.raises(ValueError, match=r"pair 2 .* opposite directions.* take path=linear"):
        latents_between(first, second, 5, "spherical")
    assert latents_between(first, second, 5).shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("keys", "num_steps", "path", "message"),
    [
        (2, 3, "sperical", r"path=sperical \(did you mean spherical\?\)"),
        (2, 1, "linear", r"num_steps=1"),
        (1, 3, "linear", r"1 key frames: .* at least 2"),
    ],
)
def test_what_is_no_way(keys: int, num_steps: int, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latent_path(torch.zeros(keys, 2), num_steps, path)


def test_a_run_decodes_the_way_that_it_is_asked_for() -> None:
    torch.manual_seed(0)
    model = LinearVAE(image_size=8, color="gray", latent_dim=3, hidden_dim=16)
    run = Run(model, Path(), {RECORD_KEY: {}, "epoch": 0, "state_dict": {}})
    first, second = torch.from_numpy(noise_images(4)).permute(0, 3, 1, 2).split(2)
    start, end = run.encode(first).mean, run.encode(second).mean
    straight = run.interpolate(first, second, 3)
    assert straight.shape == (2, 3, 1, 8, 8)
    np.testing.assert_allclose(straight[:, 1], run.decode((start + end) / 2), atol=1e-6)
    middle = start / start.norm(dim=1, keepdim=True) + end / end.norm(dim=1, keepdim=True)
    lengths = (start.norm(dim=1, keepdim=True) + end.norm(dim=1, keepdim=True)) / 2
    round_the_origin = run.decode(middle / middle.norm(dim=1, keepdim=True) * lengths)
    np.testing.assert_allclose(run.interpolate(first, second, 3, "spherical")[:, 1], round_the_origin, atol=1e-5)
    assert (straight[:, 1] - round_the_origin).abs().max() > 1e-4


def test_the_picture_shows_each_way_between_its_originals(
    subject: Subject, originals: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(images: Tensor, *words: list[str]) -> np.ndarray:
        drawn.append((images, *words))
        return tile(images)

    monkeypatch.setattr(interpolation, "labelled_grid", draw)
    interpolate(subject, originals, num_steps=3, loop=True)
    interpolate(subject, originals[:2], ["a rather long name", "B"], num_steps=3)
    (images, rows, columns, _), (pair, kinds, headings, _) = drawn
    ways = [f"{way}\n{path}" for way in ("A → B", "B → C", "C → A") for path in ("linear", "spherical")]
    assert (rows, columns) == (ways, ["from", "a = 0", "a = 0.5", "a = 1", "to"])
    assert (kinds, headings) == (["linear", "spherical"], ["a rather lo…", "a = 0", "a = 0.5", "a = 1", "B"])
    following = originals.roll(-1, dims=0)
    halfway = (originals.float() + following) / 2
    expected = torch.stack([originals, originals, halfway, following, following], dim=1)
    assert (images[::2] - expected).abs().max() <= 0.51  # the linear rows
    torch.testing.assert_close(pair, images[:2])


def test_the_numbers_are_those_of_a_cross_fade(subject: Subject, originals: Tensor, tmp_path: Path) -> None:
    interpolate(subject, originals, num_steps=5).write(tmp_path, {"num_steps": 5})
    with (tmp_path / "interpolation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 5
    unit = originals.double() / 255
    straight = [row for row in rows if row["path"] == "linear" and (row["from"], row["to"]) == ("B", "C")]
    distance = (unit[2] - unit[1]).square().mean().sqrt().item()
    assert [row["a"] for row in straight] == ["0.0", "0.25", "0.5", "0.75", "1.0"]
    assert straight[0]["pixel_step"] == ""
    steps = [float(row["pixel_step"]) for row in straight[1:]]
    assert steps == pytest.approx([distance / 4] * 4, rel=0.01)
    lengths = [float(row["latent_length"]) for row in straight]
    assert lengths == pytest.approx([torch.lerp(unit[1], unit[2], a).norm().item() for a in np.linspace(0, 1, 5)])
    found = json.loads((tmp_path / "edit.json").read_text())
    assert found["settings"] == {"num_steps": 5}
    linear, spherical = (found["paths"][path] for path in ("linear", "spherical"))
    all_steps = [float(row["pixel_step"]) for row in rows if row["path"] == "linear" and row["pixel_step"]]
    assert linear["pixel_steps_sum"] == pytest.approx(sum(all_steps))
    assert linear["longest_over_mean_pixel_step"] == pytest.approx(max(all_steps) / np.mean(all_steps))
    shortest = unit.flatten(1).norm(dim=1).min().item()
    assert linear["shortest_latent_length"] < shortest - 1e-3
    assert spherical["shortest_latent_length"] == pytest.approx(shortest)


def test_frames_of_an_animation_fade_from_original_to_original(subject: Subject, originals: Tensor) -> None:
    frames = frames_through(subject, originals, num_steps=3)
    assert frames.shape == (6, 1, 8, 8)
    assert torch.equal(frames[::2], originals)
    middle = (originals.float() + originals.roll(-1, dims=0)) / 2
    assert (frames[1::2] - middle).abs().max() <= 0.51
    assert torch.equal(frames_through(subject, originals, num_steps=3, loop=False), frames[:5])


def test_one_picture_still_has_numbers(subject: Subject, originals: Tensor) -> None:
    same = interpolate(subject, originals[[0, 0]], num_steps=3).protocol["paths"]["linear"]
    assert same["pixel_steps_sum"] == 0
    assert same["longest_over_mean_pixel_step"] is None


def test_what_cannot_be_interpolated(subject: Subject, originals: Tensor) -> None:
    with pytest.raises(ValueError, match="1 pictures: a way needs at least 2"):
        interpolate(subject, originals[:1])
    with pytest.raises(ValueError, match="3 pictures, but 2 names"):
        interpolate(subject, originals, ["one", "two"])
    with pytest.raises(ValueError, match=r"27 pictures, but 26 names: .*the letters end at 26"):
        interpolate(subject, originals[:1].expand(27, -1, -1, -1))
    with pytest.raises(ValueError, match="no path: expected linear or spherical"):
        interpolate(subject, originals, paths=[])
    with pytest.raises(ValueError, match="path=straight"):
        interpolate(subject, originals, paths=["straight"])
