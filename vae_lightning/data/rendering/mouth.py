"""The mouth: lips, teeth, tongue and the dark between them."""

import numpy as np

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.features import find_feature, skin_colour
from vae_lightning.data.rendering.head import MOUTH_V, Face
from vae_lightning.data.rendering.shapes import (
    Colour,
    Layer,
    Plane,
    anchors,
    bump,
    coverage,
    linear_light,
    mix,
    paint,
    palette,
    smooth,
    unit,
)

LIPSTICK = anchors((200, 92, 96), (176, 20, 42))


def lip_paint(factors: FaceFactors) -> Colour:
    skin = skin_colour(factors)
    bare = mix(skin * np.array([0.72, 0.40, 0.38], np.float32), linear_light(186, 104, 98), 0.25)
    red = palette(LIPSTICK, factors.lip_colour)
    return mix(bare, red, min(1.0, 1.15 * factors.lip_colour))


def paint_mouth(factors: FaceFactors, face: Face, layer: Layer) -> Plane:
    """Returns the gloss (rows, columns) of the lips, added after the light."""
    gloss = np.zeros_like(face.u)
    box = find_feature(face, 0.0, MOUTH_V + 3, factors.mouth_width + 10, 22)
    if box is None:
        return gloss
    gloss[box] = _paint_lips(factors, layer[:, *box], face.u[box], face.v[box] - MOUTH_V)
    return gloss


def _paint_lips(factors: FaceFactors, layer: Layer, x: Plane, y: Plane) -> Plane:
    smile, gap, fullness = factors.smile, factors.mouth_open, factors.lip_fullness
    half = factors.mouth_width + 3.2 * max(0.0, smile) - 2.0 * gap
    across = x * (1 / half)
    square = across * across
    arch = np.maximum(1 - square, np.float32(0))
    line = (smile if smile > 0 else 0.6 * smile) * (
        2.6 - 6.4 * np.minimum(square, np.float32(1.3))
    )  # positive smile lifts the corners
    upper_thickness = (2.0 + 2.6 * fullness) * (1 - 0.3 * max(0.0, smile))
    lower_thickness = (2.7 + 3.5 * fullness) * (1 - 0.2 * max(0.0, smile))
    round_arch = arch * (1.5 - 0.5 * arch)
    inner_upper = line - (2.4 * gap + 0.9 * max(0.0, smile - 0.35)) * round_arch
    inner_lower = line + (8.5 * gap + 1.6 * max(0.0, smile - 0.35)) * round_arch
    bow = 1 - 0.42 * bump(x, x * 0, 0.34 * half, 1) + 0.12 * bump(np.abs(x) - 0.3 * half, x * 0, 0.3 * half, 1)
    outer_upper = inner_upper - upper_thickness * np.sqrt(arch) * bow
    outer_lower = inner_lower + lower_thickness * (0.55 * arch + 0.45 * np.sqrt(arch))
    within = coverage((1 - np.abs(across)) * half, 1.5)

    colour = lip_paint(factors)
    lips = coverage(np.minimum(y - outer_upper, outer_lower - y), 1.5) * within
    paint(layer, colour, lips * 0.92)
    upper_lip = lips * coverage(inner_upper - y, 1.5)
    paint(layer, colour * 0.62, upper_lip * 0.62)
    inside = coverage(np.minimum(y - inner_upper, inner_lower - y), 1.2) * within
    _paint_inside(factors, layer, x, y, inside, inner_upper, inner_lower)
    closed = coverage(0.55 - np.abs(y - inner_upper), 1.3) * within * coverage((1.03 - np.abs(across)) * half, 2)
    paint(layer, colour * 0.16, closed * 0.8)
    _paint_around(factors, layer, x, y, half, outer_lower)
    height = (y - inner_lower) / np.maximum(lower_thickness * arch, np.float32(0.5))
    shine = bump(across * 1.6, (height - 0.42) * 1.9, 1, 1) * lips * (1 - inside)
    return shine * (0.05 + 0.11 * factors.lip_colour + 0.05 * fullness)


def _paint_inside(
    factors: FaceFactors, layer: Layer, x: Plane, y: Plane, inside: Plane, upper: Plane, lower: Plane
) -> None:
    """Dark mouth, tongue below, upper teeth in front."""
    paint(layer, linear_light(58, 18, 18), inside)
    gap = lower - upper
    paint(
        layer, linear_light(158, 72, 70), inside * coverage(y - lower + 0.32 * gap, 2.5) * unit((gap - 4) * 0.3) * 0.8
    )
    teeth_height = np.minimum(gap * 0.9, np.float32(4.0 + 0.8 * max(0.0, factors.smile)))
    teeth = inside * coverage(upper + teeth_height - y, 1.2) * unit((gap - 0.6) * 0.8)
    teeth = teeth * smooth((factors.mouth_width * 0.92 - np.abs(x)) * 0.3)
    paint(layer, linear_light(240, 234, 224), teeth)
    between = np.abs(np.sin(x * (np.pi / 4.2)))
    paint(layer, linear_light(176, 160, 150), teeth * unit(0.16 - between) * 2.0)
    paint(layer, linear_light(120, 86, 82), teeth * coverage(0.7 - (y - upper), 2) * 0.6)


def _paint_around(factors: FaceFactors, layer: Layer, x: Plane, y: Plane, half: float, outer_lower: Plane) -> None:
    """Shade under the lower lip, dents at the corners, folds of the smile."""
    shade = skin_colour(factors) * np.array([0.45, 0.32, 0.28], np.float32)
    paint(layer, shade, bump(x, y - outer_lower - 2.0, 0.7 * half, 3.2) * 0.34)
    corner = -3.8 * factors.smile
    paint(layer, shade * 0.7, bump(np.abs(x) - half, y - corner, 3.2, 2.6) * 0.5)
    smile = max(0.0, factors.smile)
    fold_u = 11.5 + (y + 15) * ((half - 7.5) / 17)
    fold = coverage(0.7 - np.abs(np.abs(x) - fold_u - 2.0), 2.6) * smooth((y + 15) * 0.25) * smooth((5 - y) * 0.2)
    paint(layer, shade, fold * 0.42 * smile)
