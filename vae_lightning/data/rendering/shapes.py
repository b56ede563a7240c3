"""The picture plane of a rendered face: pixel grid, soft edges, colours and strand noise. NumPy only, float32."""

import colorsys
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64

Plane = Float32[np.ndarray, "_ _"]  # rows, columns
Layer = Float32[np.ndarray, "3 _ _"]  # linear light, range [0, 1] where nothing shines
Colour = Float32[np.ndarray, "3"]  # linear light
Values = Float32[np.ndarray, "..."]
Number = float | int
Curve = Float32[np.ndarray, " _"]

HEIGHT, WIDTH = 218, 178  # CelebA's aligned pictures
EYES_X, EYES_Y = 88.5, 111.0  # where CelebA's alignment puts the point between the eyes


@cache
def pixel_grid() -> tuple[Plane, Plane]:
    """x to the right and y downwards of each pixel, in pixels from the point between the eyes."""
    x = np.arange(WIDTH, dtype=np.float32) - np.float32(EYES_X)
    y = np.arange(HEIGHT, dtype=np.float32) - np.float32(EYES_Y)
    grid_x, grid_y = np.broadcast_to(x, (HEIGHT, WIDTH)).copy(), np.repeat(y, WIDTH).reshape(HEIGHT, WIDTH)
    grid_x.flags.writeable = grid_y.flags.writeable = False
    return grid_x, grid_y


def window(left: Number, top: Number, right: Number, bottom: Number) -> tuple[slice, slice]:
    """Rows and columns of a box given in pixels from the point between the eyes, cut to the picture."""
    rows = slice(_clip_index(top + EYES_Y, HEIGHT), _clip_index(bottom + EYES_Y + 1, HEIGHT))
    columns = slice(_clip_index(left + EYES_X, WIDTH), _clip_index(right + EYES_X + 1, WIDTH))
    return rows, columns


def _clip_index(position: Number, size: int) -> int:
    return min(max(int(position), 0), size)


def unit(values: Values) -> Values:
    """Cut to [0, 1]; np.clip takes three times as long on small windows."""
    cut = np.maximum(values, np.float32(0))
    return np.minimum(cut, np.float32(1), out=cut)


def coverage(distance: Plane, softness: Number = 1) -> Plane:
    """Share of a pixel inside an edge: 0.5 at distance 0, 1 from softness/2 pixels inside (positive) onwards."""
    share = distance * (1 / softness)
    share += 0.5
    np.maximum(share, np.float32(0), out=share)
    return np.minimum(share, np.float32(1), out=share)


def smooth(values: Values) -> Values:
    """Hermite step from 0 at 0 to 1 at 1."""
    clipped = unit(values)
    return clipped * clipped * (3 - 2 * clipped)


def bump(x: Plane, y: Plane, radius_x: Number, radius_y: Number) -> Plane:
    """A smooth hill of height 1 at the origin that ends at the radius: (1 - r²)²."""
    rest, down = x * (1 / radius_x), y * (1 / radius_y)
    rest *= rest
    down *= down
    rest += down
    np.subtract(np.float32(1), rest, out=rest)
    np.maximum(rest, np.float32(0), out=rest)
    rest *= rest
    return rest


def linear_light(red: Number, green: Number, blue: Number) -> Colour:
    """sRGB [0, 255] -> (3,) linear light [0, 1]; gamma 2, which square and root undo cheaply."""
    return (np.array([red, green, blue], np.float32) / 255) ** 2


def mix(first: Colour, second: Colour, share: float) -> Colour:
    return first + share * (second - first)


def anchors(*colours: tuple[int, int, int]) -> Float32[np.ndarray, "_ 3"]:
    """sRGB colours as the evenly spaced fixed points of a palette."""
    return np.stack([linear_light(*colour) for colour in colours])


def palette(colours: Float32[np.ndarray, "_ 3"], position: float) -> Colour:
    """The colour at a position in [0, 1] along the anchors."""
    place = position * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    return mix(colours[first], colours[first + 1], place - first)


def hue_colour(hue_degrees: Number, lightness: Number, saturation: Number) -> Colour:
    return linear_light(*(255 * c for c in colorsys.hls_to_rgb(hue_degrees / 360, lightness, saturation)))


def paint(layer: Layer, colour: Colour | Layer, alpha: Plane | float) -> None:
    """Lay a (3,) colour or a (3, rows, columns) layer over `layer`, in place."""
    source = colour.reshape(3, 1, 1) if colour.ndim == 1 else colour
    change = source - layer
    change *= alpha
    layer += change


NOISE_ACROSS, NOISE_ALONG = 2048, 64


@cache
def strand_noise() -> Curve:
    """2048 x 64 values in [0, 1], flat, periodic both ways: streaks across, slow change along a strand."""
    random = np.random.default_rng(20150928)
    total = np.zeros((NOISE_ACROSS, NOISE_ALONG))
    for streaks, changes, weight in ((256, 4, 1.0), (96, 4, 1.0), (32, 8, 0.8)):
        total += weight * _periodic_noise(random, streaks, changes)
    low, high = np.quantile(total, [0.02, 0.98])
    return np.clip((total - low) / (high - low), 0, 1).astype(np.float32).ravel()


def _periodic_noise(random: np.random.Generator, streaks: int, changes: int) -> Float64[np.ndarray, "_ _"]:
    knots = random.random((streaks, changes))
    across = _periodic_resize(knots, NOISE_ACROSS)
    return _periodic_resize(across.T, NOISE_ALONG).T


def _periodic_resize(knots: Float64[np.ndarray, "_ _"], size: int) -> Float64[np.ndarray, "_ _"]:
    place = np.arange(size) * (len(knots) / size)
    first = place.astype(int)
    share = place - first
    share = (share * share * (3 - 2 * share))[:, None]
    return knots[first] * (1 - share) + knots[(first + 1) % len(knots)] * share


def sample_strands(across: Plane, along: Plane) -> Plane:
    """Strand noise where one unit of `across` is the whole table (256 streaks) and one of `along` its other side."""
    row = (across * NOISE_ACROSS).astype(np.int64) & (NOISE_ACROSS - 1)
    column = (along * NOISE_ALONG).astype(np.int64) & (NOISE_ALONG - 1)
    row *= NOISE_ALONG
    row += column
    return strand_noise().take(row)
