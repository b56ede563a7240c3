"""The continuous ground-truth factors of a rendered face, and how people and their pictures are sampled."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FactorRange:
    """What one factor means; `of_person` factors are the same in all pictures of a person."""

    low: float
    high: float
    of_person: bool
    meaning: str


def _factor(default: float, low: float, high: float, meaning: str, *, of_person: bool = False) -> Any:
    return field(default=default, metadata={"range": FactorRange(low, high, of_person, meaning)})


def _trait(default: float, low: float, high: float, meaning: str) -> Any:
    return _factor(default, low, high, meaning, of_person=True)


@dataclass(frozen=True)
class FaceFactors:
    """Everything that decides a picture. The defaults are one plain, neutral face in soft light."""

    masculinity: float = _trait(0.3, 0.0, 1.0, "jaw, neck and lashes: 0 feminine, 1 masculine")
    age: float = _trait(0.25, 0.0, 1.0, "0 smooth skin, 1 folds, bags and forehead lines")
    skin_tone: float = _trait(0.3, 0.0, 1.0, "0 very light, 1 very dark")
    face_width: float = _trait(43.5, 39.0, 49.0, "half width at the cheeks, pixels")
    face_height: float = _trait(70.0, 64.0, 77.0, "eye line to chin, pixels")
    hair_lightness: float = _trait(0.3, 0.0, 1.0, "0 black, 0.5 brown, 1 light blond")
    hair_warmth: float = _trait(0.3, 0.0, 1.0, "0 ash, 1 red")
    hair_greyness: float = _trait(0.0, 0.0, 1.0, "share of grey hair")
    hair_length: float = _trait(0.3, 0.0, 1.0, "0 cropped, 0.5 to the jaw, 1 past the shoulders")
    hair_wave: float = _trait(0.2, 0.0, 1.0, "0 straight, 1 strongly waved")
    fringe: float = _trait(0.1, 0.0, 1.0, "0 forehead free, 1 hair down to the brows")
    bald: float = _trait(0.0, 0.0, 1.0, "0 full hair, 0.5 receding, 1 bald on top")
    brow_thickness: float = _trait(0.4, 0.0, 1.0, "0 about 2 pixels, 1 about 6 pixels")
    brow_arch: float = _trait(0.4, 0.0, 1.0, "0 straight, 1 arched")
    eye_spacing: float = _trait(20.0, 18.0, 22.0, "half the distance between the eyes, pixels")
    eye_colour: float = _trait(0.3, 0.0, 1.0, "0 dark brown, 0.5 green, 1 blue")
    nose_size: float = _trait(0.4, 0.0, 1.0, "width and length: 0 small, 1 big")
    mouth_width: float = _trait(17.0, 14.0, 20.0, "half width at rest, pixels")
    lip_fullness: float = _trait(0.5, 0.0, 1.0, "0 thin, 1 full")
    head_yaw: float = _factor(0.0, -32.0, 32.0, "degrees, positive turns to the right edge of the picture")
    head_tilt: float = _factor(0.0, -12.0, 12.0, "degrees, positive leans clockwise")
    smile: float = _factor(0.2, -1.0, 1.0, "-1 mouth corners down, 0 straight, 1 broad smile")
    mouth_open: float = _factor(0.0, 0.0, 1.0, "0 closed, 1 wide open")
    eye_openness: float = _factor(0.7, 0.0, 1.0, "0 almost closed, 1 wide open")
    lip_colour: float = _factor(0.2, 0.0, 1.0, "0 bare lips, 1 strong red lipstick")
    beard: float = _factor(0.0, 0.0, 1.0, "0 shaven, 0.3 stubble, 0.6 round the mouth, 1 full")
    glasses: float = _factor(0.0, 0.0, 1.0, "0 none, 1 heavy dark frame")
    hat: float = _factor(0.0, 0.0, 1.0, "0 none, 1 woollen hat pulled down to the brows")
    background_hue: float = _factor(210.0, 0.0, 300.0, "degrees on the colour circle")
    background_lightness: float = _factor(0.5, 0.0, 1.0, "0 nearly black, 1 nearly white")
    clothes_hue: float = _factor(220.0, 0.0, 300.0, "degrees on the colour circle; the hat's too")
    clothes_lightness: float = _factor(0.4, 0.0, 1.0, "0 nearly black, 1 nearly white")
    light_direction: float = _factor(-25.0, -70.0, 70.0, "degrees, negative lights from the left edge")
    light_strength: float = _factor(0.5, 0.0, 1.0, "0 flat light, 1 one hard lamp")

    def __post_init__(self) -> None:
        for name, limits in FACTOR_RANGES.items():
            value = getattr(self, name)
            if not limits.low <= value <= limits.high:
                raise ValueError(f"{name}={value!r}: must lie in [{limits.low:g}, {limits.high:g}]")


FACTOR_RANGES: dict[str, FactorRange] = {f.name: f.metadata["range"] for f in fields(FaceFactors)}
IDENTITY_FACTORS = tuple(name for name, limits in FACTOR_RANGES.items() if limits.of_person)


@dataclass(frozen=True)
class Picture:
    """One picture to draw: whose it is (from 1), in which split (0 train, 1 validation, 2 test), and how."""

    identity: int
    partition: int
    factors: FaceFactors


PEOPLE_PER_BLOCK = 20
MEAN_PICTURES_PER_PERSON = 8


def sample_pictures(count: int, seed: int) -> list[Picture]:
    """The first `count` pictures of the endless sequence that `seed` names: a shorter set is a prefix of a longer.

    People come in blocks of 20, of whom two are in the validation and two in the test split. A block shows each of
    its people once, then their other pictures, shuffled; so even the smallest set has all splits.
    """
    pictures: list[Picture] = []
    block = 0
    while len(pictures) < count:
        pictures.extend(_sample_block(seed, block))
        block += 1
    return pictures[:count]


def _sample_block(seed: int, block: int) -> Iterator[Picture]:
    first, later = [], []
    for person in range(block * PEOPLE_PER_BLOCK, (block + 1) * PEOPLE_PER_BLOCK):
        partition = {8: 1, 9: 2}.get(person % 10, 0)
        pictures = [Picture(person + 1, partition, factors) for factors in sample_person(seed, person)]
        first.append(pictures[0])
        later.extend(pictures[1:])
    order = np.random.default_rng([seed, 1, block])
    yield from (first[index] for index in order.permutation(len(first)))
    yield from (later[index] for index in order.permutation(len(later)))


def sample_person(seed: int, person: int) -> list[FaceFactors]:
    """All pictures of one person, 1 to about 30 of them, 8 on average."""
    random = np.random.default_rng([seed, 0, person])
    num_pictures = 1 + int(random.negative_binomial(2, 2 / (1 + MEAN_PICTURES_PER_PERSON)))
    traits = _sample_traits(random)
    habits = _sample_habits(random, traits)
    return [_sample_picture(random, traits, habits) for _ in range(num_pictures)]


def _sample_traits(random: np.random.Generator) -> FaceFactors:
    is_male = random.random() < 0.45
    age = random.beta(1.4, 2.2)
    hair_length = random.beta(1.5, 5.0) if is_male else 0.25 + 0.75 * random.beta(2.2, 1.6)
    bald = 0.35 + 0.65 * random.random() if is_male and random.random() < 0.1 + 0.3 * age else 0.05 * random.random()
    traits = {
        "masculinity": 0.62 + 0.38 * random.random() if is_male else 0.38 * random.random(),
        "age": age,
        "skin_tone": random.beta(1.3, 1.9),
        "face_width": random.normal(44.8 if is_male else 43.0, 1.7),
        "face_height": random.normal(71.5 if is_male else 69.0, 2.2),
        "hair_lightness": random.beta(1.1, 1.7),
        "hair_warmth": random.beta(1.4, 2.6),
        "hair_greyness": random.beta(4, 2) if age > 0.5 and random.random() < 0.55 else 0.1 * random.random(),
        "hair_length": hair_length * (1 - bald) if bald > 0.3 else hair_length,
        "hair_wave": random.beta(1.0, 1.5),
        "fringe": 0.45 + 0.55 * random.random()
        if random.random() < (0.15 if is_male else 0.4)
        else 0.2 * random.random(),
        "bald": bald,
        "brow_thickness": random.beta(3.0, 2.0) if is_male else random.beta(2.0, 3.2),
        "brow_arch": random.beta(1.6, 3.0) if is_male else random.beta(2.6, 1.8),
        "eye_spacing": random.normal(19.9, 0.8),
        "eye_colour": random.beta(0.8, 1.1),
        "nose_size": random.beta(2.6, 2.2) if is_male else random.beta(2.0, 3.0),
        "mouth_width": random.normal(17.0, 1.2),
        "lip_fullness": random.beta(2.0, 2.6) if is_male else random.beta(2.6, 2.0),
    }
    return _within_range(FaceFactors(), traits)


@dataclass(frozen=True)
class _Habits:
    """What a person tends to in their pictures; not written anywhere, the factors that follow from it are."""

    smile: float
    lip_colour: float
    beard: float
    wears_glasses: float  # share of the pictures
    glasses: float
    wears_hat: float


def _sample_habits(random: np.random.Generator, traits: FaceFactors) -> _Habits:
    is_male = traits.masculinity > 0.5
    return _Habits(
        smile=random.normal(0.45, 0.3),
        lip_colour=0.25 * random.random() if is_male else random.beta(1.5, 1.5),
        beard=random.random() if is_male and random.random() < 0.6 else 0.0,
        wears_glasses=float(random.choice([0.02, 0.5, 0.95], p=[0.89, 0.05, 0.06])),
        glasses=0.45 + 0.55 * random.random(),
        wears_hat=float(random.choice([0.01, 0.3], p=[0.85, 0.15])),
    )


def _sample_picture(random: np.random.Generator, traits: FaceFactors, habits: _Habits) -> FaceFactors:
    smile = random.normal(habits.smile, 0.33)
    is_open = random.random() < 0.25 + 0.35 * (smile > 0.3)
    picture = {
        "head_yaw": random.normal(0, 13),
        "head_tilt": random.normal(0, 3.8),
        "smile": smile,
        "mouth_open": random.beta(1.6, 2.2) if is_open else 0.0,
        "eye_openness": random.beta(5, 2.0),
        "lip_colour": random.normal(habits.lip_colour, 0.06 if traits.masculinity > 0.5 else 0.18),
        "beard": random.normal(habits.beard, 0.1) if habits.beard else 0.0,
        "glasses": habits.glasses if random.random() < habits.wears_glasses else 0.0,
        "hat": 0.8 + 0.2 * random.random() if random.random() < habits.wears_hat else 0.0,
        "background_hue": 300 * random.random(),
        "background_lightness": random.beta(1.2, 1.2),
        "clothes_hue": 300 * random.random(),
        "clothes_lightness": random.beta(1.1, 1.4),
        "light_direction": random.normal(0, 32),
        "light_strength": random.beta(2.0, 2.0),
    }
    return _within_range(traits, picture)


def _within_range(base: FaceFactors, values: dict[str, float]) -> FaceFactors:
    """Clipped to the range and rounded to what `factors.csv` holds, so that a row there draws its very picture."""
    limits = {name: FACTOR_RANGES[name] for name in values}
    clipped = {name: min(max(float(value), limits[name].low), limits[name].high) for name, value in values.items()}
    return replace(base, **{name: round(value, 6) for name, value in clipped.items()})
