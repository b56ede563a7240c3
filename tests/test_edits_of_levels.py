"""Edits of a hierarchical model: the coarse levels move, the finer ones are kept, drawn anew, or at their mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import subject_of, tiny_ladder
from tiny_runs import LADDER, checkpoint, write_run
from torch import Tensor

from callbacks import TraversalGrid
from vae_lightning import load_run
from vae_lightning.editing.attributes import amplification, directions, guided_faces
from vae_lightning.editing.attributes.amplification import amplify, encode_faces, rank_dimensions
from vae_lightning.editing.attributes.directions import edit_attribute, subject_directions
from vae_lightning.editing.attributes.guidance import GuidanceSettings
from vae_lightning.editing.attributes.guided_faces import guide_faces
from vae_lightning.editing.attributes.one_latent import OneLatent
from vae_lightning.editing.identity import transfer as transferring
from vae_lightning.editing.identity.bases import fit_basis, people_with
from vae_lightning.editing.identity.scores import transfer_scores
from vae_lightning.editing.identity.transfer import transfer
from vae_lightning.editing.interpolation import interpolate
from vae_lightning.editing.judging.judge import Judge
from vae_lightning.editing.judging.methods import methods_for
from vae_lightning.editing.judging.trade_off import compare_methods
from vae_lightning.latents.directions import DirectionFile, Directions
from vae_lightning.latents.finer import FINER, finer_words, with_finer
from vae_lightning.latents.paths import latents_between
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.models.levels import LatentLevel, chosen_levels
from vae_lightning.pictures.face_grids import traversal_grid
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.fitted import direction_file
from vae_lightning.runs.subject import Subject

NAMES = ("Smiling", "Male")
LEVELS = [LatentLevel("2x2", 2, 2, 2), LatentLevel("4x4", 1, 4, 4), LatentLevel("32x32", 1, 32, 32)]
COARSE, ALL = 8, 24  # latents of tiny_ladder: 2x2 with 8, 4x4 with 16


class Reader(Recognizer):
    """Its first log-odds are the brightness of the picture, the others its contrasts."""

    def __init__(self, names: tuple[str, ...] = NAMES, target: str = "attributes") -> None:
        super().__init__(32, "gray", target)
        self.names = names

    def embed(self, images: Tensor) -> Tensor:
        top, left = images[..., :4, :], images[..., :4]
        parts = [images, top, left, images[..., ::2, :], images[..., ::2], images[..., 2:6, 2:6]]
        return torch.stack([part.flatten(1).mean(1) for part in parts], dim=1)

    def read_features(self, features: Tensor) -> Tensor:
        return 20 * (features[:, : len(self.names)] - 0.5)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Bright faces smile; 40 people with 3 pictures each; the level 2x2 is edited."""
    random = np.random.default_rng(0)
    smiles, males = random.random(120) < 0.5, random.random(120) < 0.5
    people = np.repeat(np.arange(40), 3)
    base = random.integers(0, 60, (40, 8, 8, 1))[people]
    images = 60 + 60 * smiles[:, None, None, None] + base + random.integers(0, 40, (120, 8, 8, 1))
    made = subject_of(tiny_ladder().requires_grad_(False), images.astype(np.uint8), levels=["2x2"])
    monkeypatch.setattr(type(made.data), "attribute_names", NAMES)
    labels = np.stack([smiles, males], axis=1)
    monkeypatch.setattr(made, "attributes", lambda split, at_most=None: labels)
    monkeypatch.setattr(made.data, "identities", lambda split: people)
    monkeypatch.setattr(made.data, "image_names", lambda split, rows: [f"{row}.png" for row in rows.tolist()])
    return made


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the grids that edits draw."""
    said: list[str] = []
    for module in (amplification, directions, guided_faces, transferring):
        draw = module.labelled_grid
        monkeypatch.setattr(
            module,
            "labelled_grid",
            lambda images, rows, columns=(), title="", draw=draw: (
                said.append(title) or draw(images, rows, columns, title)
            ),
        )
    return said


def test_levels_are_chosen_by_name_the_coarsest_first() -> None:
    assert chosen_levels(LEVELS) == LEVELS[:2]  # all three have more than 1,024 latents
    assert chosen_levels(LEVELS, ["2x2"]) == LEVELS[:1]
    for names in (["4x4"], ["4x4", "2x2"], ["2x2", "4x4", "32x32"], ["8x8"]):
        with pytest.raises(ValueError, match=f"levels={','.join(names)}: allowed are .*, 2x2 or 2x2,4x4;"):
            chosen_levels(LEVELS, names)
    with pytest.raises(ValueError, match="single level"):
        chosen_levels([LatentLevel("latents", 128, 1, 1)], ["latents"])


def test_a_spherical_way_turns_in_each_level_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(3, ALL, generator=generator) for _ in range(2))
    second[:, COARSE:] *= 5
    way = latents_between(first, second, 5, "spherical", LEVELS[:2])
    for part in (slice(COARSE), slice(COARSE, ALL)):
        assert way[..., part].equal(latents_between(first[:, part], second[:, part], 5, "spherical"))
    assert not way.allclose(latents_between(first, second, 5, "spherical"), atol=0.1)
    assert latents_between(first, second, 5, "linear", LEVELS[:2]).equal(latents_between(first, second, 5))


def test_pictures_on_a_spherical_way_are_those_of_its_levels(subject: Subject) -> None:
    originals = subject.pixels("test", np.arange(2))
    rows = interpolate(subject, originals, num_steps=3, paths=["spherical"]).tables["interpolation"]
    ends = encode_faces(subject, originals)
    middle = latents_between(ends[:1], ends[1:], 3, "spherical", subject.model.latent_levels)[0, 1]
    assert rows[1]["latent_length"] == pytest.approx(middle.norm().item())


def test_finer_latents_are_kept_drawn_by_the_seed_or_at_their_mean() -> None:
    latents = torch.randn(2, 3, ALL)
    kept, drawn, again, other, mean = (
        with_finer(latents, COARSE, *how) for how in (["keep"], ["redraw"], ["redraw"], ["redraw", 1], ["mean"])
    )
    assert kept.equal(latents)
    assert drawn.equal(again)
    assert not drawn[..., COARSE:].equal(other[..., COARSE:])
    assert drawn[0, 0, COARSE:].equal(drawn[1, 2, COARSE:])  # the same for all, so that faces differ by what was kept
    assert not mean[..., COARSE:].any()
    for each in (drawn, other, mean):
        assert each[..., :COARSE].equal(latents[..., :COARSE])
    assert finer_words(LEVELS, COARSE, "redraw", 3) == ", finer levels (4x4, 32x32) redrawn with seed 3"
    assert not finer_words(LEVELS, 24 + 1024)


@pytest.mark.parametrize(("finer", "message"), [("redraw", "no finer ones"), ("mean", "no finer"), ("keap", "keep")])
def test_what_cannot_become_of_finer_latents(finer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_finer(torch.zeros(2, ALL), ALL, finer)


def test_directions_are_of_the_chosen_levels_and_kept_with_them(subject: Subject, tmp_path: Path) -> None:
    file = DirectionFile(tmp_path / "directions.pt", "digest")
    fitted = subject_directions(subject, file)
    assert (fitted.covariance.shape, fitted.levels, fitted.finer) == ((COARSE, COARSE), ("2x2",), ALL - COARSE)
    shift = fitted.direction("Smiling", "probe", ["Male"]).shift(2.0)
    assert shift.shape == (ALL,)
    assert shift[:COARSE].any()
    assert not shift[COARSE:].any()
    kept = file.read()
    assert kept is not None
    assert kept.levels == ("2x2",)
    assert kept.direction("Smiling").vector.equal(fitted.direction("Smiling").vector)
    both = Subject(subject.model, subject.data, subject.reconstruction)
    both.attributes = subject.attributes  # type: ignore[method-assign]
    refitted = subject_directions(both, file)
    assert (refitted.num_moved, refitted.levels, refitted.finer) == (ALL, ("2x2", "4x4"), 0)
    with pytest.raises(ValueError, match="finer levels"):
        Directions(**{**vars(fitted), "finer": -1})


@pytest.mark.parametrize("finer", FINER)
def test_an_attribute_moves_the_coarse_levels(
    subject: Subject, titles: list[str], finer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, decoded = subject.pixels("test", np.arange(2)), []
    decode = subject.decode_uint8
    monkeypatch.setattr(subject, "decode_uint8", lambda latents: decoded.append(latents) or decode(latents))
    direction = subject_directions(subject).direction("Smiling")
    edit_attribute(subject, faces, ["a", "b"], direction, [0.0, 2.0], finer=finer)
    start = with_finer(encode_faces(subject, faces), COARSE, finer)
    expected = torch.stack([start, start + direction.shift(2.0)], dim=1).flatten(0, 1)
    torch.testing.assert_close(torch.cat(decoded), expected)
    how = {"keep": "kept", "redraw": "redrawn with seed 0", "mean": "at the mean of their prior"}[finer]
    assert titles[0].endswith(f", finer levels (4x4) {how}")


def test_single_latents_are_ranked_in_the_levels_and_any_may_be_moved(subject: Subject, titles: list[str]) -> None:
    rows = rank_dimensions(subject, "kl")
    assert sorted(int(row["dimension"] or 0) for row in rows) == list(range(COARSE))
    assert {row["dimension"]: row["place"] for row in rows}[5] == "2x2 map 1 (0, 1)"
    amplify(subject, subject.pixels("test", np.arange(1)), ["a"], [23, 1], num_steps=2, attribute="Male", finer="mean")
    assert titles[0].startswith("4x4 map 0 (3, 3) + α · Male r = ")
    assert all(title.endswith("finer levels (4x4) at the mean of their prior") for title in titles)
    assert not OneLatent(subject, "Smiling").shift[COARSE:].any()


def test_guidance_moves_the_levels_alone(subject: Subject, titles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    guided = []
    original = guided_faces.guide
    monkeypatch.setattr(guided_faces, "guide", lambda *each: guided.append(original(*each)) or guided[-1])
    reader, settings = Reader().eval().requires_grad_(False), GuidanceSettings(num_steps=3, lr=0.1, num_shown=2)
    faces = subject.pixels("test", np.arange(2))
    guide_faces(subject, reader, faces, ["a", "b"], {"Smiling": True}, settings, "redraw")
    start = with_finer(encode_faces(subject, faces), COARSE, "redraw")
    moved = guided[0].latents - start
    assert moved[:, :COARSE].abs().min() > 0
    assert not moved[:, COARSE:].any()
    assert guided[0].path[-1].equal(guided[0].latents)
    assert "finer levels (4x4) redrawn with seed 0" in titles[0]


def test_identity_is_in_the_levels(subject: Subject, titles: list[str]) -> None:
    basis = fit_basis(subject, "identity")
    assert basis.loadings.shape == (COARSE, COARSE)
    latents = encode_faces(subject, subject.pixels("test", np.arange(2)))
    moved = basis.transfer(latents[:1], latents[1:], COARSE)
    torch.testing.assert_close(moved, torch.cat([latents[1:, :COARSE], latents[:1, COARSE:]], dim=1))
    people = people_with(subject, "test", 3)[:1]
    result = transfer(subject, people, np.array([100, 110]), finer="redraw")
    assert result.protocol["components"] == COARSE // 4
    assert len(result.tables["components"]) == COARSE
    assert [title.endswith("finer levels (4x4) redrawn with seed 0") for title in titles] == [False, True, True]
    reader = Reader(("age", "smile", "hat"), "factors").eval()
    rows = transfer_scores(subject, reader, 20, [COARSE], [1.0], min_pictures=3, finer="mean")
    for row in rows:  # all of the levels is all of the way
        assert row["identity share"] == pytest.approx(1, abs=1e-3)


def test_scores_say_what_the_edits_move(subject: Subject, tmp_path: Path) -> None:
    judge = Judge(Reader().eval().requires_grad_(False), subject)
    methods = methods_for(subject, DirectionFile(tmp_path / "directions.pt", "digest"), "Smiling", True)
    chosen = {"means": methods["means"]}
    result = compare_methods(judge, subject, "Smiling", True, chosen, [1.0, 8.0], 30, finer="mean")
    assert "Edits move latents of the levels 2x2 (8 of 24 latents), finer levels (4x4) at the mean of their prior." in (
        result.remarks
    )
    for row in result.tables["scores"]:
        assert row["reencoding"] is not None
        assert row["gaussian_prior_nats"] is not None


def test_traversals_are_of_coarse_latents_by_level_and_place(subject: Subject) -> None:
    levels = subject.model.latent_levels
    grid = TraversalGrid("run", num_dimensions=30, num_steps=2).draw(
        subject.model, subject.pixels("test", np.arange(9))
    )
    assert len(grid.row_labels) == ALL  # all of this model's levels are coarse
    statistics = LatentStatistics(torch.zeros(ALL), torch.ones(ALL), torch.arange(float(ALL)))
    assert statistics.most_active(2, levels[0].size) == [7, 6]
    drawn = traversal_grid(subject.model, subject.pixels("test", np.arange(1))[0], [7, 8], statistics, 3.0, 2)
    assert drawn.row_labels == ["2x2 map 1 (1, 1)\n7.00 nats", "4x4 map 0 (0, 0)\n8.00 nats"]


def test_a_run_edits_a_ladder_and_a_flat_model_has_nothing_finer(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 32, 32)
    for folder, model, finer in (("ladder", LADDER, 1024), ("flat", {}, 0)):
        vae = load_run(write_run(tmp_path / folder, "Logistic" if model else "SquaredError", **model))
        count = vae.model.latent_dim - finer
        means, spread = torch.randn(4, count).double(), torch.eye(count, dtype=torch.float64)
        counts = torch.tensor([3, 1]), torch.tensor([1, 3])
        levels = ("4x4", "8x8") if model else ()
        fitted = Directions(NAMES, means[:2], means[2:], spread[:2], spread, *counts, levels=levels, finer=finer)
        direction_file(checkpoint(tmp_path / folder)).write(fitted)
        latents = vae.encode(images).mean + fitted.direction("Smiling").shift(2.0)
        assert vae.edit(images, "Smiling", 2.0).equal(vae.decode(latents))
        if model:
            redrawn = vae.edit(images, "Smiling", 2.0, finer="redraw", seed=7)
            assert redrawn.equal(vae.decode(with_finer(latents, count, "redraw", 7)))
        else:
            with pytest.raises(ValueError, match="finer=redraw: all 6 latents"):
                vae.edit(images, "Smiling", finer="redraw")
