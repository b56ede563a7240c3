"""The head as a surface: where each pixel lies on it, how deep, and how the light falls there.

Each height of the head is an ellipse (half width a, half depth b), turned by the yaw and seen from the front, which
has a closed solution per pixel; relief (nose, sockets, cheeks, lips) is added to the depth, and the nose also moves
sideways with the yaw. `u` is to the right and `v` downwards on the unturned face, `w` towards the viewer, all in pixels
from the point between the eyes.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.shapes import Curve, Plane, bump, coverage, pixel_grid, smooth, window

STEPS_PER_PIXEL = 8
TABLE_TOP = -140  # v of the first entry of a profile
PROFILE_V = np.arange(TABLE_TOP, 160, 1 / STEPS_PER_PIXEL, dtype=np.float32)
WIDEST_V = 4.0
MOUTH_V = 40.0


@dataclass(frozen=True)
class Pose:
    """The picture plane in head coordinates: x, y turned back by the tilt and moved so that the eyes stay in place."""

    x: Plane
    y: Plane
    rows: Int64[np.ndarray, "_ _"]  # index into profiles
    sin_yaw: float
    cos_yaw: float


def make_pose(factors: FaceFactors) -> Pose:
    tilt, yaw = math.radians(factors.head_tilt), math.radians(factors.head_yaw)
    grid_x, grid_y = pixel_grid()
    x = grid_x * math.cos(tilt) + grid_y * math.sin(tilt)
    y = grid_y * math.cos(tilt) - grid_x * math.sin(tilt)
    x += 0.72 * half_depth(factors) * math.sin(yaw)
    rows = ((y - TABLE_TOP) * STEPS_PER_PIXEL).astype(np.int64)
    return Pose(x, y, rows, math.sin(yaw), math.cos(yaw))


def half_depth(factors: FaceFactors) -> float:
    return 0.55 * factors.face_width + 26


def skull_top(factors: FaceFactors) -> float:
    return -(0.42 * factors.face_height + 36.5)


def chin_v(factors: FaceFactors) -> float:
    return factors.face_height + 5 * factors.mouth_open + 3 * max(0.0, factors.beard - 0.5)


@dataclass(frozen=True)
class Profile:
    """Half width and half depth of a body of elliptic slices, per entry of PROFILE_V; negative beyond its ends."""

    half_width: Curve
    half_depth: Curve
    centre_w: Curve | None = None  # the middle of each slice lies this far before the head's axis


def head_profile(factors: FaceFactors) -> Profile:
    """Skull above, jaw below: the jaw's corner comes with masculinity."""
    upper = (WIDEST_V - PROFILE_V) / (WIDEST_V - skull_top(factors))
    lower = (PROFILE_V - WIDEST_V) / (chin_v(factors) - WIDEST_V)
    jaw_power = 1.95 + 0.85 * factors.masculinity + 0.05 * (factors.face_width - 44)
    jaw_roundness = 0.68 - 0.1 * factors.masculinity
    is_upper = PROFILE_V < WIDEST_V
    width = np.where(is_upper, round_off(upper, 2.7, 0.46), round_off(lower, jaw_power, jaw_roundness))
    front = np.where(is_upper, round_off(upper, 2.6, 0.5), round_off(lower * 0.88, 4.5, 0.5)) * half_depth(factors)
    # The jaw's slices shrink and move forward, else a turned head would have a cheek as deep as its skull.
    depth = np.where(is_upper, front, np.minimum(front, half_depth(factors) * (0.25 + 0.75 * width)))
    depth = np.maximum(depth, np.float32(1))
    return Profile(width * factors.face_width, depth, np.maximum(front - depth, np.float32(0)))


def round_off(share: Curve, flatness: float, roundness: float) -> Curve:
    """1 at share 0, falling to 0 at share 1 and on to negative values beyond."""
    rest = 1 - np.maximum(share, np.float32(0)) ** np.float32(flatness)
    return np.sign(rest) * np.abs(rest) ** np.float32(roundness)


@dataclass(frozen=True)
class Shell:
    """A body of elliptic slices as seen in a window of the picture."""

    across: Plane  # s = x / silhouette half width, cut to [-1, 1]
    edge: Plane  # pixels inside the silhouette, negative outside
    u: Plane
    w: Plane
    depth: Plane  # towards the viewer


@dataclass(frozen=True)
class SliceTables:
    """Per entry of PROFILE_V: the turned ellipse x' = u cos + w sin, solved for the point that the viewer sees."""

    silhouette: Curve
    slope: Curve  # 1 / sqrt(1 + (d silhouette / dv)²), makes horizontal distances true ones
    u_across: Curve
    u_facing: Curve
    w_across: Curve
    w_facing: Curve
    centre_w: Curve | None


def solve_slices(profile: Profile, pose: Pose) -> SliceTables:
    a, b = np.maximum(profile.half_width, np.float32(1)), profile.half_depth
    silhouette = np.sqrt((a * pose.cos_yaw) ** 2 + (b * pose.sin_yaw) ** 2)
    cos_delta, sin_delta = a * pose.cos_yaw / silhouette, b * pose.sin_yaw / silhouette
    signed = _blur(
        np.where(profile.half_width > 0, silhouette, profile.half_width)
    )  # the slope at the poles is infinite
    slope = (1 / np.sqrt(1 + np.gradient(signed, 1 / STEPS_PER_PIXEL) ** 2)).astype(np.float32)
    return SliceTables(signed, slope, a * cos_delta, -a * sin_delta, b * sin_delta, b * cos_delta, profile.centre_w)


def _blur(profile: Curve) -> Curve:
    """Mean over two pixels."""
    reach = STEPS_PER_PIXEL
    total = np.cumsum(np.pad(profile, (reach + 1, reach), mode="edge"), dtype=np.float64)
    return ((total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)).astype(np.float32)


def see_shell(tables: SliceTables, pose: Pose, where: tuple[slice, slice]) -> Shell:
    rows, x = pose.rows[where], pose.x[where]
    centre = None if tables.centre_w is None else tables.centre_w.take(rows, mode="clip")
    if centre is not None:
        x = x - centre * pose.sin_yaw
    silhouette = tables.silhouette.take(rows, mode="clip")
    edge = (silhouette - np.abs(x)) * tables.slope.take(rows, mode="clip")
    across = x / np.maximum(silhouette, np.float32(1))
    across, u, w = _on_slice(tables, rows, across)
    if centre is not None:
        w = w + centre
    return Shell(across, edge, u, w, w * pose.cos_yaw - u * pose.sin_yaw)


def _on_slice(tables: SliceTables, rows: Int64[np.ndarray, "_ _"], across: Plane) -> tuple[Plane, Plane, Plane]:
    across = np.minimum(np.maximum(across, np.float32(-1)), np.float32(1))
    facing = np.sqrt(1 - across * across)
    u = tables.u_across.take(rows, mode="clip") * across + tables.u_facing.take(rows, mode="clip") * facing
    w = tables.w_across.take(rows, mode="clip") * across + tables.w_facing.take(rows, mode="clip") * facing
    return across, u, w


@dataclass(frozen=True)
class Face:
    """The head's surface in its window: `u` already moved by the nose's parallax, normal pointing to the viewer."""

    where: tuple[slice, slice]
    mask: Plane  # share of each pixel that is head
    u: Plane
    v: Plane
    normal: tuple[Plane, Plane, Plane]


def see_face(factors: FaceFactors, pose: Pose) -> Face:
    where = _face_window(factors, pose)
    tables = solve_slices(head_profile(factors), pose)
    shell = see_shell(tables, pose, where)
    v = pose.y[where]
    u, relief = _raise_nose(factors, pose, shell.u, v)
    relief += _soft_relief(factors, u, v)
    depth = shell.depth + relief * pose.cos_yaw
    return Face(where, coverage(shell.edge, 1.3), u, v, surface_normal(depth))


def _face_window(factors: FaceFactors, pose: Pose) -> tuple[slice, slice]:
    """A box around the head, whichever way it leans."""
    lean = abs(math.sin(math.radians(factors.head_tilt)))
    top, bottom, reach = skull_top(factors), chin_v(factors), factors.face_width + 3
    shift = -0.72 * half_depth(factors) * pose.sin_yaw
    turn = 6 * abs(pose.sin_yaw)
    left, right = shift - reach - 60 * lean - turn, shift + reach + 60 * lean + turn
    return window(left, top - 2 - 25 * lean, right, bottom + 3 + 8 * lean)


def surface_normal(depth: Plane, steepness: float = 1.0) -> tuple[Plane, Plane, Plane]:
    """Unit normal of a height field: x right, y down, z to the viewer."""
    x, y = np.zeros_like(depth), np.zeros_like(depth)
    np.subtract(depth[:, :-2], depth[:, 2:], out=x[:, 1:-1])
    np.subtract(depth[:-2], depth[2:], out=y[1:-1])
    x *= 0.5 * steepness
    y *= 0.5 * steepness
    z = 1 / np.sqrt(x * x + y * y + 1)
    return x * z, y * z, z


def _raise_nose(factors: FaceFactors, pose: Pose, u: Plane, v: Plane) -> tuple[Plane, Plane]:
    """Fixed point of `the pixel shows the skin whose height moves it here`; two rounds suffice below 35 degrees."""
    relief = nose_height(factors, u, v)
    moved = u - relief * (pose.sin_yaw * pose.cos_yaw)
    relief = nose_height(factors, moved, v)
    moved = u - relief * (pose.sin_yaw * pose.cos_yaw)
    return moved, nose_height(factors, moved, v)


def nose_tip_v(factors: FaceFactors) -> float:
    return 20.5 + 4.5 * factors.nose_size


def nose_height(factors: FaceFactors, u: Plane, v: Plane) -> Plane:
    """Ridge that rises from the brows to the tip, ball of the tip, wings; pixels towards the viewer."""
    tip, size = nose_tip_v(factors), factors.nose_size
    height = np.zeros_like(u)
    rows = slice(*np.searchsorted(v[:, v.shape[1] // 2], [-24.0, 48.0]))
    u, v = u[rows], v[rows]
    down = (v + 12) * (1 / (tip + 12))
    ridge = smooth(down) * smooth((tip + 6 - v) * (1 / 9)) * (8.5 + 3 * size)
    half_width = 8.5 + 4.0 * size + 3 * np.abs(down - 0.45)
    inside = np.maximum(1 - (u / half_width) ** 2, np.float32(0))
    height[rows] = ridge * inside * inside
    height[rows] += bump(u, v - tip + 1, 9 + 3 * size, 9 + 2 * size) * (4.5 + 2 * size)
    wing = 6.2 + 3.2 * size
    height[rows] += bump(np.abs(u) - wing, v - tip - 2, 5.5 + 1.5 * size, 5.5) * (3.6 + size)
    return height


def _soft_relief(factors: FaceFactors, u: Plane, v: Plane) -> Plane:
    """Sockets, brow ridge, cheeks, muzzle, chin; pixels towards the viewer."""
    side = np.abs(u)
    smile = max(0.0, factors.smile)
    spacing = factors.eye_spacing
    relief = bump(side - spacing, v - 1, 17, 12) * -4.2
    relief += bump(side - spacing, v, 11, 7.5) * 2.6  # the eyeball
    relief += bump(side - 0.85 * spacing, v + 14, 24, 10) * (1.2 + 1.6 * factors.masculinity)
    relief += bump(side - 25, v - 21 + 2.5 * smile, 19, 19) * (2.6 + 2.4 * smile - factors.age)
    relief += bump(side - 30, v - 44, 14, 20) * (-1.2 - 0.9 * factors.age)
    relief += bump(u, v - MOUTH_V, 24, 18) * 3.4
    relief += bump(u, v - factors.face_height + 9 - 4 * factors.mouth_open, 15, 12) * 3.6
    relief += bump(u, v - 53 - 2 * factors.mouth_open, 16, 5) * -1.3  # the hollow under the lower lip
    return relief


@dataclass(frozen=True)
class Light:
    """A warm lamp from the side and above, and the sky's fill; the stronger the lamp, the weaker the fill."""

    direction: tuple[float, float, float]
    lamp: float
    fill: float


def make_light(factors: FaceFactors) -> Light:
    azimuth, elevation = math.radians(factors.light_direction), math.radians(34)
    direction = (
        math.sin(azimuth) * math.cos(elevation),
        -math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    strength = factors.light_strength
    return Light(direction, 0.42 + 0.75 * strength, 0.62 - 0.44 * strength)


def towards_light(normal: tuple[Plane, Plane, Plane], light: Light) -> Plane:
    """Cosine between normal and lamp, in [-1, 1]."""
    x, y, z = normal
    return x * light.direction[0] + y * light.direction[1] + z * light.direction[2]
