"""The built-in rendered faces: the pictures, their factors, and the data set in CelebA's layout."""

import csv
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import run

from vae_lightning.data.rendering import dataset as faces
from vae_lightning.data.rendering.attributes import ATTRIBUTE_NAMES, RULES, describe_attributes, face_attributes
from vae_lightning.data.rendering.dataset import faces_folder_name, render_faces
from vae_lightning.data.rendering.drawing import draw_face
from vae_lightning.data.rendering.factors import FACTOR_RANGES, IDENTITY_FACTORS, FaceFactors, sample_pictures

COUNT = 40
TABLES = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt", "factors.csv", "ATTRIBUTES.md")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render_faces(tmp_path_factory.mktemp("rendered") / "faces", count=COUNT, seed=3)


@cache
def many_pictures():
    return sample_pictures(4000, seed=0)


def read_factors(root):
    with (root / "factors.csv").open() as file:
        return list(csv.DictReader(file))


def read_columns(path):
    return [line.split() for line in path.read_text().splitlines()]


def attribute(factors, name):
    return face_attributes(factors)[ATTRIBUTE_NAMES.index(name)]


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# The data set


def test_layout_is_celebas(rendered):
    names = [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]
    assert sorted(path.name for path in (rendered / "img_align_celeba").iterdir()) == names
    count, header, *rows = read_columns(rendered / "list_attr_celeba.txt")
    assert count == [str(COUNT)]
    assert header == list(ATTRIBUTE_NAMES)
    assert len(header) == 40
    assert [row[0] for row in rows] == names
    assert {len(row) for row in rows} == {41}
    assert {value for row in rows for value in row[1:]} == {"1", "-1"}
    for table in ("list_eval_partition.txt", "identity_CelebA.txt"):
        assert [row[0] for row in read_columns(rendered / table)] == names
    assert [row["filename"] for row in read_factors(rendered)] == names
    with Image.open(rendered / "img_align_celeba" / names[0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (178, 218))


def test_a_row_of_factors_draws_its_picture_and_its_attributes(rendered):
    _, _, *attribute_rows = read_columns(rendered / "list_attr_celeba.txt")
    for row, attributes in list(zip(read_factors(rendered), attribute_rows, strict=True))[:5]:
        factors = FaceFactors(**{name: float(row[name]) for name in FACTOR_RANGES})
        assert [value == "1" for value in attributes[1:]] == face_attributes(factors)
        with Image.open(rendered / "img_align_celeba" / row["filename"]) as picture:
            error = np.abs(np.asarray(picture).astype(float) - draw_face(factors)).mean()
        assert error < 4  # what JPEG loses


@pytest.mark.parametrize("count", [20, 60, 800])
def test_splits_share_no_person_and_none_is_empty(count):
    people = {0: set(), 1: set(), 2: set()}
    for picture in sample_pictures(count, seed=0):
        people[picture.partition].add(picture.identity)
    assert all(people.values())
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_splits_and_people_have_celebas_proportions():
    pictures = many_pictures()
    partitions = np.bincount([picture.partition for picture in pictures]) / len(pictures)
    np.testing.assert_allclose(partitions, [0.8, 0.1, 0.1], atol=0.04)
    per_person = np.bincount([picture.identity for picture in pictures])[1:]
    assert 6.5 < per_person.mean() < 9.5
    assert (per_person >= 10).mean() > 0.2
    assert per_person.min() >= 1


def test_identity_factors_are_constant_for_a_person_and_others_vary(rendered):
    rows = read_factors(rendered)
    several = [person for person in {row["identity"] for row in rows} if sum(r["identity"] == person for r in rows) > 2]
    assert several
    for person in several:
        own = [row for row in rows if row["identity"] == person]
        assert all(len({row[name] for row in own}) == 1 for name in IDENTITY_FACTORS)
        assert len({row["head_yaw"] for row in own}) == len(own)


def test_a_shorter_set_is_the_beginning_of_a_longer():
    assert sample_pictures(20, seed=5) == sample_pictures(300, seed=5)[:20]
    assert sample_pictures(20, seed=5) != sample_pictures(20, seed=6)


def test_the_same_bytes_again_and_in_processes(tmp_path, rendered):
    again = render_faces(tmp_path / "again", count=COUNT, seed=3, num_workers=2)
    assert contents(again) == contents(rendered)


def test_a_complete_set_is_not_drawn_again(rendered, monkeypatch):
    monkeypatch.setattr(faces, "draw_face", _fail)
    assert render_faces(rendered, count=COUNT, seed=3) == rendered


def test_a_set_that_is_killed_or_not_whole_or_of_another_count_is_drawn_again(tmp_path):
    half = tmp_path / ".faces.partial" / "img_align_celeba"
    half.mkdir(parents=True)
    (half / "999999.jpg").write_bytes(b"half")
    root = render_faces(tmp_path / "faces", count=20)
    pictures = root / "img_align_celeba"
    assert not (pictures / "999999.jpg").exists()
    (pictures / "000007.jpg").unlink()
    render_faces(root, count=20)
    assert (pictures / "000007.jpg").is_file()
    render_faces(root, count=21)
    assert json.loads((root / "faces.json").read_text())["count"] == 21
    assert len(list(pictures.iterdir())) == 21
    assert _folders(tmp_path) == ["faces"]


def _fail(factors):
    raise KeyboardInterrupt


def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "draw_face", _fail)
    with pytest.raises(KeyboardInterrupt):
        render_faces(tmp_path / "faces", count=20)
    assert _folders(tmp_path) == []


def test_no_space_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def fill_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(faces, "draw_chunk", fill_disk)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "faces"))):
        render_faces(tmp_path / "faces", count=20)
    assert _folders(tmp_path) == []


def test_two_that_start_together_render_once(tmp_path, monkeypatch):
    drawn = []
    draw_chunk = faces.draw_chunk
    monkeypatch.setattr(faces, "draw_chunk", lambda *chunk: drawn.append(chunk[1]) or draw_chunk(*chunk))
    with ThreadPoolExecutor(2) as threads:
        roots = list(threads.map(lambda _: render_faces(tmp_path / "faces", count=20), range(2)))
    assert roots == [tmp_path / "faces"] * 2
    assert drawn == [0]


def _folders(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [({"count": 19}, "count=19"), ({"seed": -1}, "seed=-1"), ({"num_workers": 0}, "num_workers=0")],
)
def test_bad_arguments(tmp_path, arguments, shown):
    with pytest.raises(ValueError, match=shown):
        render_faces(tmp_path / "faces", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds no rendered faces"):
        render_faces(tmp_path, count=20)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_folder_names_tell_sets_apart():
    assert len({faces_folder_name(20, 0), faces_folder_name(20, 1), faces_folder_name(21, 0)}) == 3


# Factors and attributes


def test_factors_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"smile=1\.5: must lie in \[-1, 1\]"):
        FaceFactors(smile=1.5)


def test_sampled_people_show_every_rendered_attribute_and_its_absence():
    attributes = np.array([face_attributes(picture.factors) for picture in many_pictures()])
    shares = dict(zip(ATTRIBUTE_NAMES, attributes.mean(axis=0), strict=True))
    assert {name for name, share in shares.items() if 0 < share < 1} == set(RULES)
    assert 0.3 < shares["Smiling"] < 0.65
    assert 0.3 < shares["Male"] < 0.6


def test_the_words_of_each_rule_say_what_it_does():
    for picture in sample_pictures(400, seed=1):
        names = {name: getattr(picture.factors, name) for name in FACTOR_RANGES}
        for words, rule in RULES.values():
            assert eval(words, {}, names) == rule(picture.factors), words


@pytest.mark.parametrize(
    ("name", "without", "with_it"),
    [
        ("Smiling", {"smile": 0.3}, {"smile": 0.5}),
        ("Eyeglasses", {"glasses": 0.0}, {"glasses": 0.5}),
        ("Bald", {"bald": 0.5}, {"bald": 0.9}),
        ("Gray_Hair", {"hair_greyness": 0.2}, {"hair_greyness": 0.8}),
        ("No_Beard", {"beard": 0.8}, {"beard": 0.0}),
        ("Mouth_Slightly_Open", {"mouth_open": 0.0}, {"mouth_open": 0.3}),
    ],
)
def test_attributes_follow_factors(name, without, with_it):
    assert not attribute(replace(FaceFactors(), **without), name)
    assert attribute(replace(FaceFactors(), **with_it), name)


def test_what_is_not_drawn_is_said():
    text = describe_attributes()
    for name in ATTRIBUTE_NAMES:
        assert name in text
    assert not attribute(FaceFactors(), "Wearing_Necktie")


# Pictures

# Waves need some length to show.
COMPANIONS = {"hair_wave": {"hair_length": 0.7}}


@pytest.mark.parametrize("name", FACTOR_RANGES)
def test_every_factor_changes_the_picture(name):
    base = replace(FaceFactors(), **COMPANIONS.get(name, {}))
    limits = FACTOR_RANGES[name]
    low, high = (draw_face(replace(base, **{name: value})).astype(int) for value in (limits.low, limits.high))
    difference = np.abs(low - high).mean(axis=2)
    assert difference.mean() > 0.1  # of 255, over the whole picture: an iris is 0.3 % of it
    assert (difference > 16).sum() > 50  # pixels that clearly differ


@pytest.mark.parametrize("name", FACTOR_RANGES)
def test_a_small_step_makes_a_small_change(name):
    limits = FACTOR_RANGES[name]
    middle = (limits.low + limits.high) / 2
    step = (limits.high - limits.low) / 200
    first, second = (
        draw_face(replace(FaceFactors(), **{name: value})).astype(int) for value in (middle, middle + step)
    )
    assert np.abs(first - second).mean() < 3.5


def test_the_lit_side_is_brighter():
    cheek = {"left": (slice(125, 140), slice(55, 68)), "right": (slice(125, 140), slice(109, 122))}
    for degrees, lit, dark in ((-60.0, "left", "right"), (60.0, "right", "left")):
        picture = draw_face(FaceFactors(light_direction=degrees, light_strength=0.9)).astype(float)
        assert picture[cheek[lit]].mean() > picture[cheek[dark]].mean() + 20


def test_the_eyes_stand_where_celeba_aligns_them():
    open_eyes, closed = (draw_face(FaceFactors(eye_openness=value)).astype(int) for value in (1.0, 0.0))
    rows, columns = np.nonzero(np.abs(open_eyes - closed).sum(axis=2) > 150)
    assert abs(rows.mean() - 111) < 4
    assert abs(columns[columns < 89].mean() - 69) < 3
    assert abs(columns[columns >= 89].mean() - 108) < 3


def test_extreme_faces_are_drawn_without_numerical_trouble():
    random = np.random.default_rng(0)
    for _ in range(20):
        ends = {name: random.choice([limits.low, limits.high]) for name, limits in FACTOR_RANGES.items()}
        with np.errstate(all="raise", under="ignore"):
            picture = draw_face(FaceFactors(**{name: float(value) for name, value in ends.items()}))
        assert picture.shape == (218, 178, 3)
        assert picture.std() > 15


def test_the_renderer_imports_no_torch():
    """A worker process imports it; torch would add seconds to each."""
    loaded = "import sys, vae_lightning.data.rendering.dataset; print({'torch', 'lightning'} & set(sys.modules))"
    assert run(sys.executable, "-c", loaded, cwd=Path.cwd()).stdout.strip() == "set()"
