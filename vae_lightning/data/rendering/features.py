"""What is painted onto the skin before the light falls on it: cheeks, eyes, brows, nostrils, mouth, beard."""

import numpy as np

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.head import Face, nose_tip_v
from vae_lightning.data.rendering.shapes import (
    Colour,
    Layer,
    Number,
    Plane,
    anchors,
    bump,
    coverage,
    linear_light,
    mix,
    paint,
    palette,
    sample_strands,
    smooth,
    unit,
)

SKIN = anchors((250, 222, 203), (240, 196, 165), (217, 164, 126), (174, 119, 82), (124, 81, 54), (90, 58, 42))
HAIR = anchors((20, 17, 18), (50, 33, 24), (92, 60, 38), (150, 108, 66), (198, 158, 102), (236, 208, 156))
RED_HAIR = anchors((52, 18, 12), (150, 58, 26), (226, 136, 76))
GREY_HAIR = anchors((112, 112, 116), (232, 230, 226))
IRIS = anchors((62, 38, 22), (112, 76, 40), (104, 122, 74), (96, 136, 160), (70, 120, 186))


def skin_colour(factors: FaceFactors) -> Colour:
    return palette(SKIN, factors.skin_tone)


def hair_colour(factors: FaceFactors) -> Colour:
    natural = palette(HAIR, factors.hair_lightness)
    red = palette(RED_HAIR, factors.hair_lightness)
    coloured = mix(natural, red, 0.85 * factors.hair_warmth)
    grey = palette(GREY_HAIR, 0.25 + 0.6 * factors.hair_lightness)
    return mix(coloured, grey, 0.92 * factors.hair_greyness)


def brow_colour(factors: FaceFactors) -> Colour:
    return mix(hair_colour(factors) * 0.55, linear_light(44, 30, 24), 0.45)


def paint_skin(factors: FaceFactors, face: Face) -> Layer:
    """Skin with redder cheeks, nose and lips' surroundings, paler forehead, and the marks of age."""
    tone = skin_colour(factors)
    layer = np.empty((3, *face.u.shape), np.float32)
    layer[:] = tone.reshape(3, 1, 1)
    side = np.abs(face.u)
    red = bump(side - 26, face.v - 24, 22, 17) * 0.5
    red += bump(face.u, face.v - nose_tip_v(factors), 13, 12) * 0.35
    paint(layer, tone * np.array([1.0, 0.66, 0.6], np.float32), red)
    if factors.age > 0:
        paint(
            layer, tone * np.array([0.5, 0.38, 0.34], np.float32), _age_marks(factors, side, face.v) * factors.age**1.5
        )
    return layer


def _age_marks(factors: FaceFactors, side: Plane, v: Plane) -> Plane:
    """Folds from the nose to the mouth, bags under the eyes, three lines on the forehead."""
    mouth = factors.mouth_width
    fold_u = 11 + (v - 24) * ((mouth - 5) / 22)
    marks = coverage(1.0 - np.abs(side - fold_u) * 0.8, 2.5) * smooth((v - 23) * 0.2) * smooth((47 - v) * 0.12) * 0.65
    across = (side - factors.eye_spacing) * (1 / 11)
    bag_v = 10.5 - 3.5 * across * across
    marks += coverage(0.8 - np.abs(v - bag_v) * 0.7, 2.2) * unit(1.2 - across * across) * 0.55
    for line_v in (-27.0, -34.0, -41.0):
        marks += coverage(0.5 - np.abs(v - line_v + side * side * 0.004), 2) * smooth((30 - side) * 0.1) * 0.4
    return marks


def paint_eyes(factors: FaceFactors, face: Face, layer: Layer, sin_yaw: float) -> Plane:
    """Both eyes; returns the glint (rows, columns) that is added after the light."""
    glint = np.zeros_like(face.u)
    for side in (-1, 1):
        box = find_feature(face, side * factors.eye_spacing, 0.0, 17, 15)
        if box is not None:
            x = (face.u[box] - side * factors.eye_spacing) * side  # outwards
            glint[box] = _paint_eye(factors, layer[:, *box], x, face.v[box], -sin_yaw * side * 5.0, side)
    return glint


def find_feature(face: Face, u: float, v: float, reach_u: Number, reach_v: Number) -> tuple[slice, slice] | None:
    """The part of the window within reach of a point of the face."""
    inside = (np.abs(face.u - u) < reach_u) & (np.abs(face.v - v) < reach_v) & (face.mask > 0)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _paint_eye(factors: FaceFactors, layer: Layer, x: Plane, y: Plane, gaze: float, side: int) -> Plane:
    width, openness, femininity = 10.4, factors.eye_openness, 1 - factors.masculinity
    across = np.minimum(np.maximum(x * (1 / width), np.float32(-1.25)), np.float32(1.25))
    arch = np.maximum(1 - across * across, np.float32(0))
    slant = -0.07 * x
    upper = slant - (0.3 + 6.2 * openness) * arch * (1.45 - 0.45 * arch) + 0.6
    lower = slant + (1.0 + 2.5 * openness) * arch + 0.6
    # The lid's fold and its shade, over the socket.
    fold = upper - 3.0 + 1.2 * across * across - 1.2 * (1 - openness)
    paint(layer, layer * 0.62, coverage(0.45 - np.abs(y - fold), 1.6) * unit(1.35 - across * across) * 0.75)
    paint(layer, layer * 0.8, unit((y - fold) * 0.5) * unit((upper - y + 1) * 0.5) * (arch > 0) * 0.6)
    opening = coverage(np.minimum(y - upper, lower - y), 1.2) * (arch > 0)
    white = mix(linear_light(236, 232, 228), linear_light(200, 190, 186), 0.15)
    paint(layer, white, opening)
    paint(layer, linear_light(120, 92, 88), opening * coverage(1.2 - (y - upper), 3) * 0.75)
    paint(layer, linear_light(205, 140, 130), opening * coverage(-across - 0.84, 0.12) * 0.8)
    glint = _paint_iris(factors, layer, x - gaze, y + 0.9, opening, side)
    lash = 0.75 + 0.5 * femininity + across * 0.5 * (0.4 + femininity)
    wing = coverage(1.02 + 0.16 * femininity - np.abs(across - 0.02), 0.12)
    lash_line = coverage(lash * 0.8 - np.abs(y - upper + 0.3), 1.1) * wing
    paint(layer, linear_light(26, 17, 15), lash_line * (0.72 + 0.28 * femininity))
    paint(layer, linear_light(70, 44, 38), coverage(0.35 - np.abs(y - lower), 1.3) * (arch > 0.1) * 0.55)
    return glint * (1 - lash_line)


def _paint_iris(factors: FaceFactors, layer: Layer, x: Plane, y: Plane, opening: Plane, side: int) -> Plane:
    radius = np.sqrt(x * x + y * y)
    colour = palette(IRIS, factors.eye_colour)
    iris = coverage(5.1 - radius, 1.1) * opening
    paint(layer, colour * 0.3, iris)
    paint(
        layer,
        mix(colour, linear_light(255, 230, 180), 0.06),
        coverage(4.3 - radius, 1.4) * opening * unit(0.75 + y * 0.14),
    )
    paint(layer, linear_light(10, 8, 8), coverage(2.2 - radius, 1.0) * opening)
    spot = -1.5 if factors.light_direction < 0 else 1.5
    glint_x = x * side - spot  # x runs outwards, so this is to the right in the picture
    return coverage(1.15 - np.sqrt(glint_x**2 + (y + 1.5) ** 2), 1.0) * opening * 0.9


def paint_brows(factors: FaceFactors, face: Face, layer: Layer) -> None:
    box = _rows(face, -36, -4)
    u, v = face.u[box], face.v[box]
    x = np.abs(u) - factors.eye_spacing
    across = x * (1 / 13.5)
    arch = factors.brow_arch
    line = -15.0 + 0.04 * x - (0.8 + 4.6 * arch) * (1 - (across - 0.2) ** 2) + 2.6 * arch
    thickness = (0.9 + 2.3 * factors.brow_thickness) * unit(1.15 - 0.62 * (across + 0.2))
    ends = smooth((across + 1.08) * 5) * smooth((1.05 - across) * 3)
    hairs = sample_strands(u * 0.05 + v * 0.045, v * 0.01)
    alpha = coverage(thickness - np.abs(v - line), 1.7) * ends * (0.62 + 0.38 * hairs)
    paint(layer[:, *box], brow_colour(factors), alpha * (0.62 + 0.3 * factors.brow_thickness))


def _rows(face: Face, top: Number, bottom: Number) -> tuple[slice, slice]:
    """The window's rows that can show v between top and bottom under any tilt."""
    columns = face.v.shape[1]
    first = int(np.searchsorted(face.v.max(axis=1), top))
    last = int(np.searchsorted(face.v.min(axis=1), bottom))
    return slice(first, last), slice(0, columns)


def paint_nostrils(factors: FaceFactors, face: Face, layer: Layer) -> None:
    box = find_feature(face, 0.0, nose_tip_v(factors) + 3, 18, 9)
    if box is None:
        return
    size = factors.nose_size
    x, y = np.abs(face.u[box]), face.v[box] - nose_tip_v(factors) - 4.6
    hole = bump(x - 4.4 - 1.8 * size, y + 0.18 * (x - 5), 3.6 + size, 2.3 + 0.4 * size)
    paint(layer[:, *box], skin_colour(factors) * 0.1, unit(hole * 1.6) * 0.74)
    wing = 8.2 + 3.9 * size
    crease = coverage(0.6 - np.abs(x - wing + 0.12 * (y + 3) ** 2), 1.8) * unit(1 - np.abs(y + 2.5) * 0.2)
    under = bump(face.u[box], y - 1.2, 9 + 3 * size, 3.0) * 0.3
    paint(layer[:, *box], skin_colour(factors) * np.array([0.42, 0.3, 0.27], np.float32), unit(crease * 0.5 + under))


def paint_beard(factors: FaceFactors, face: Face, layer: Layer) -> None:
    """Grows from the chin and the upper lip over the jaw to the ears."""
    if factors.beard <= 0:
        return
    box = _rows(face, -8, 110)
    u, v = face.u[box], face.v[box]
    side, chin = np.abs(u), factors.face_height
    amount = factors.beard
    ready = np.maximum(
        1.15 - (side / 15) ** 2 - ((v - 32.5 - 0.02 * side * side) / 5.0) ** 2,
        1.2 - (side / 19) ** 2 - ((v - chin + 8) / 15) ** 2,
    )
    ready = np.maximum(ready, (1.15 - ((side - 18.5) / 4.5) ** 2 - ((v - 43) / 13) ** 2) * 0.8)
    cheek = unit((v - 41 + 0.022 * np.maximum(side - 16, 0) ** 2 * 1.6) * 0.14 + 0.3)
    ready = np.maximum(ready, cheek * smooth((v - 4) * 0.1) * smooth((side - 20 + (v - 38) * 0.9) * 0.12) * 0.75)
    density = unit((ready - 0.86 + 0.95 * amount) * 1.7) * unit((v + 4) * 0.2)
    hairs = sample_strands(u * 0.021 + 0.3 * np.sin(v * 0.03), v * 0.012)
    density *= min(amount * 3.0, 1.0) ** 2 * (0.42 + 0.55 * min(1.0, amount * 1.35))
    density *= 1 - 0.42 * hairs * (1 - 0.5 * amount)
    paint(layer[:, *box], mix(brow_colour(factors), hair_colour(factors), 0.3), density)
