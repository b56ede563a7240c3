"""A knitted hat, a third body around head and hair."""

import numpy as np

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.hair import hair_volume
from vae_lightning.data.rendering.head import (
    PROFILE_V,
    WIDEST_V,
    Light,
    Pose,
    Profile,
    Shell,
    half_depth,
    round_off,
    see_shell,
    skull_top,
    solve_slices,
    towards_light,
)
from vae_lightning.data.rendering.shapes import Layer, Plane, bump, coverage, hue_colour, paint, unit, window


def brim_v(factors: FaceFactors) -> float:
    """Where the hat ends on the forehead; above the skull while the factor is small."""
    return -112 + 90 * factors.hat


def draw_hat(canvas: Layer, factors: FaceFactors, pose: Pose, light: Light) -> None:
    """Comes down from above the skull as the factor grows."""
    if factors.hat <= 0:
        return
    where = window(-110, -111, 110, brim_v(factors) + 20)
    volume = hair_volume(factors)
    top = skull_top(factors) - volume - 10 * factors.hat
    curve = round_off((WIDEST_V - PROFILE_V) / (WIDEST_V - top), 2.7, 0.46)
    profile = Profile(
        (curve * (factors.face_width + volume + 3)).astype(np.float32),
        np.maximum(curve * (half_depth(factors) + volume + 4), 1).astype(np.float32),
    )
    shell = see_shell(solve_slices(profile, pose), pose, where)
    v = pose.y[where]
    brim = brim_v(factors) - 5 * (1 - shell.across**2)
    alpha = coverage(np.minimum(brim - v, shell.edge), 1.4)
    paint(canvas[:, *where], _knit(factors, shell, v, brim, light), alpha)


def _knit(factors: FaceFactors, shell: Shell, v: Plane, brim: Plane, light: Light) -> Layer:
    """A ribbed band of 17 pixels, stitches above."""
    colour = hue_colour(factors.clothes_hue, 0.16 + 0.62 * factors.clothes_lightness, 0.36)
    ribs = np.cos(np.arctan2(shell.u, np.maximum(shell.w, np.float32(1))) * 34)
    is_band = coverage(v - brim + 17, 1.5)
    stitches = np.cos(v * 2.1 + 3.1 * ribs)
    texture = 0.86 + 0.14 * ribs * is_band + 0.07 * (ribs + stitches) * (1 - is_band)
    x, y = shell.across * 0.9, unit((brim - v - 10) * 0.012) * -0.8
    z = np.sqrt(np.maximum(1 - x * x - y * y, np.float32(0.05)))
    shade = light.fill + light.lamp * np.maximum(towards_light((x, y, z), light), np.float32(0.05))
    shade *= 1 - 0.35 * bump(v * 0, v - brim + 18, 1, 4) * (v < brim - 17)
    shade *= 0.72 + 0.28 * unit((brim - v) * 0.3)
    return colour.reshape(3, 1, 1) * (shade * texture)
