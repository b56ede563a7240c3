"""What surrounds the head: background, neck, clothes, ears, glasses."""

from functools import cache

import numpy as np

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.features import skin_colour
from vae_lightning.data.rendering.head import Light, Pose, chin_v, half_depth
from vae_lightning.data.rendering.shapes import (
    Layer,
    Plane,
    bump,
    coverage,
    hue_colour,
    linear_light,
    mix,
    paint,
    pixel_grid,
    smooth,
    unit,
    window,
)


@cache
def _background_fields() -> tuple[Plane, Plane]:
    """Height in the picture [0, 1] and a pattern of soft discs, lights far out of focus."""
    x, y = pixel_grid()
    random = np.random.default_rng(178218)
    discs = np.zeros_like(x)
    for _ in range(16):
        centre_x, centre_y, radius = random.uniform(-95, 95), random.uniform(-115, 110), random.uniform(9, 26)
        distance = np.sqrt((x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2)
        discs += coverage((radius - distance).astype(np.float32), 7.0) * np.float32(random.uniform(0.25, 0.8))
    return (y + 111) * np.float32(1 / 218), discs


def draw_background(factors: FaceFactors, light: Light) -> Layer:
    down, discs = _background_fields()
    x, _ = pixel_grid()
    lightness = factors.background_lightness
    hue = factors.background_hue
    upper = hue_colour(hue, 0.12 + 0.78 * lightness, 0.3)
    lower = hue_colour(hue + 18, 0.05 + 0.66 * lightness, 0.26)
    glow = 1 + light.direction[0] * light.lamp * 0.0035 * x
    canvas = upper.reshape(3, 1, 1) + (lower - upper).reshape(3, 1, 1) * down
    bright = hue_colour(hue + 10, 0.3 + 0.65 * lightness, 0.36)
    canvas += (bright - upper).reshape(3, 1, 1) * (discs * 0.36)
    canvas *= glow
    return canvas


def draw_body(canvas: Layer, factors: FaceFactors, pose: Pose, light: Light) -> None:
    """Neck with the head's shadow, shoulders, a round collar."""
    where = window(-90, 30, 90, 110)
    x, y = pixel_grid()[0][where], pixel_grid()[1][where]
    lean = -pose.sin_yaw * 5 - factors.head_tilt * 0.45 * unit((95 - y) * 0.02)
    neck_half = 23.5 + 8 * factors.masculinity + 0.3 * (factors.face_width - 45)
    slope = np.maximum(y - 74, np.float32(0))
    half = neck_half + 0.055 * slope**2
    across = (x - lean) / half
    limited = np.minimum(np.maximum(across, np.float32(-1)), np.float32(1))
    normal = (limited * 0.92, np.float32(-0.12) * limited**2, np.sqrt(1.02 - 0.85 * limited * limited))
    facing = normal[0] * light.direction[0] + normal[1] * light.direction[1] + normal[2] * light.direction[2]
    shade = light.fill * 0.8 + light.lamp * np.maximum(facing, np.float32(0)) * 0.9
    shadow_x = x - lean + light.direction[0] * 9
    under = unit((chin_v(factors) + 19 - y - 0.006 * shadow_x**2) * 0.05)
    shade *= 1 - 0.62 * smooth(under)
    shade *= 1 - 0.07 * bump(np.abs(x - lean) - 11 - 0.12 * (95 - y), y - 94, 7, 24)
    skin = skin_colour(factors).reshape(3, 1, 1) * shade
    skin[1:] *= (1 - 0.1 * under) * 0.96
    region = canvas[:, *where]
    paint(region, skin, coverage((half - np.abs(x - lean)) * 0.8, 1.3))
    _draw_clothes(region, factors, x - lean * 0.6, y, light)


def _draw_clothes(region: Layer, factors: FaceFactors, x: Plane, y: Plane, light: Light) -> None:
    colour = hue_colour(factors.clothes_hue, 0.1 + 0.75 * factors.clothes_lightness, 0.38)
    shoulder = 79 + 0.00016 * np.abs(x) ** 2.6 + 3 * np.exp(-(((np.abs(x) - 30) / 8) ** 2))
    reach = 33 + 5 * factors.masculinity
    neckline = 74 + 23 * np.sqrt(np.maximum(1 - (x / reach) ** 2, np.float32(0)))
    top = np.maximum(shoulder, np.where(np.abs(x) < reach, neckline, 0))
    normal_x = np.minimum(np.maximum(x * 0.011, np.float32(-0.85)), np.float32(0.85))
    facing = normal_x * light.direction[0] - 0.35 * light.direction[1] + 0.6 * light.direction[2]
    shade = light.fill + light.lamp * np.maximum(facing, np.float32(0.05))
    collar = coverage(4.2 - (y - neckline), 1.4) * (np.abs(x) < reach)
    folds = 1 + 0.10 * np.sin(x * 0.16 + (y - 90) * 0.12) * smooth((y - 92) * 0.06)
    shade = shade * folds * (1 - 0.2 * collar) * (0.8 + 0.2 * unit((y - top) * 0.2))
    paint(region, colour.reshape(3, 1, 1) * shade, coverage(y - top, 1.4))


def draw_ears(canvas: Layer, factors: FaceFactors, pose: Pose, light: Light, head: Plane) -> None:
    """`head` is the head's coverage of the whole picture: the ear on the far side stays behind it."""
    for side in (-1, 1):
        ear_u, ear_w = side * (factors.face_width - 0.5), -6.0
        centre = ear_u * pose.cos_yaw + ear_w * pose.sin_yaw
        middle = centre - 0.72 * half_depth(factors) * pose.sin_yaw
        where = window(middle - 26, -24, middle + 26, 40)
        nearness = min(1.0, max(0.0, -side * pose.sin_yaw * 4))
        hidden = head[where] * (1 - nearness)
        _draw_ear(
            canvas[:, *where],
            factors,
            (pose.x[where] - centre) * side,
            pose.y[where] - 11,
            light,
            side,
            hidden,
            nearness,
        )


def _draw_ear(
    region: Layer, factors: FaceFactors, x: Plane, y: Plane, light: Light, side: int, hidden: Plane, nearness: float
) -> None:
    width = 6.5 + 2.0 * nearness
    outward = x - 2.2 + 0.22 * y
    radius = np.sqrt((outward / width) ** 2 + (y / (15.5 - 0.06 * x)) ** 2)
    alpha = coverage((1 - radius) * width, 1.4)
    lit = max(0.0, 0.45 + 0.5 * side * light.direction[0])
    shade = light.fill * 0.8 + light.lamp * lit * (0.75 + 0.35 * unit(radius))
    shade *= 1 - 0.5 * bump(outward + 1.0, y + 1, 0.62 * width, 10.5)
    shade *= 1 - 0.18 * bump(radius - 0.72, radius * 0, 0.14, 1)
    colour = skin_colour(factors) * np.array([1.0, 0.84, 0.8], np.float32)
    paint(region, colour.reshape(3, 1, 1) * shade, alpha * (1 - hidden))


def draw_glasses(canvas: Layer, factors: FaceFactors, pose: Pose, light: Light, head: Plane) -> None:
    """Frame, bridge, arms and glint, on a plane before the eyes."""
    if factors.glasses <= 0:
        return
    where = window(-72, -30, 72, 38)
    plane_depth = half_depth(factors) * 0.97 + 5
    u = (pose.x[where] - plane_depth * pose.sin_yaw) / pose.cos_yaw
    v = pose.y[where] - 2.0
    presence, weight = min(1.0, factors.glasses * 2.2), 0.75 + 1.35 * factors.glasses
    x = np.abs(u) - factors.eye_spacing - 0.6
    corner = np.sqrt(np.maximum(np.abs(x) - 8.0, 0) ** 2 + np.maximum(np.abs(v + 0.4) - 4.6, 0) ** 2)
    lens = 7.4 - corner + 0.03 * x
    frame = coverage(weight - np.abs(lens), 1.2)
    bridge = coverage(weight * 0.85 - np.abs(v + 3.5 - 0.035 * u * u), 1.2) * (np.abs(u) < factors.eye_spacing - 13)
    arms = coverage(weight * 0.9 - np.abs(v + 4.2), 1.2) * (x > 14.8) * head[where]
    region = canvas[:, *where]
    inside = coverage(lens, 1.2) * presence
    region *= 1 - 0.10 * inside
    reflex = coverage(2.6 - np.abs(0.8 * u - np.sign(u) * (0.8 * factors.eye_spacing) + 0.9 * v + 2), 2.5)
    region += inside * (0.035 + 0.14 * reflex * (v < 1) * light.lamp)
    alpha = np.maximum(np.maximum(frame, bridge), arms) * presence
    body = mix(linear_light(120, 92, 70), linear_light(20, 18, 20), min(1.0, factors.glasses * 1.3))
    shade = 0.75 + 0.5 * unit(-lens * 0.5 - v * 0.04)
    paint(region, body.reshape(3, 1, 1) * shade, alpha * 0.95)
