"""Hair as a second body around the head: its outline, where it ends on the forehead, its strands and their light."""

import math

import numpy as np

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.features import hair_colour
from vae_lightning.data.rendering.head import (
    PROFILE_V,
    WIDEST_V,
    Light,
    Pose,
    Profile,
    half_depth,
    round_off,
    see_shell,
    skull_top,
    solve_slices,
    towards_light,
)
from vae_lightning.data.rendering.shapes import (
    Curve,
    Layer,
    Plane,
    bump,
    coverage,
    paint,
    sample_strands,
    smooth,
    unit,
    window,
)

HAIRLINE_ACROSS = np.linspace(0, 1, 129, dtype=np.float32)
_HAIRLINE_KNOTS = ([0, 0.25, 0.5, 0.7, 0.82, 0.9, 0.96, 1.0], [-54, -53, -48, -38, -26, -13, -4, 0])


def hairline(factors: FaceFactors) -> Curve:
    """v where the forehead begins, by |u| / half width in 128 steps; a fringe lowers it, baldness lifts it.

    Long hair without a fringe opens like a curtain: high in the middle, low at the temples.
    """
    across = HAIRLINE_ACROSS
    line = np.interp(across, *_HAIRLINE_KNOTS)
    line = np.convolve(np.pad(line, 6, mode="edge"), np.full(13, 1 / 13), mode="valid")
    line += parted(factors) * (34 * across**1.4 * (1 - across**4) - 3)
    line += 36 * factors.fringe * (1 - across**2) * (1 - factors.bald)
    line -= 64 * factors.bald * (1.1 - 0.75 * (1 - factors.bald) * across**4)
    line -= 10 * max(0.0, factors.bald - 0.1) * np.exp(-(((across - 0.6) / 0.2) ** 2))
    result: Curve = line.astype(np.float32)
    return result


def parted(factors: FaceFactors) -> float:
    """1 for long hair that falls to both sides of a parting, 0 for short hair and for a full fringe."""
    length = min(1.0, max(0.0, (factors.hair_length - 0.25) / 0.3))
    return length * (1 - factors.fringe) ** 1.5 * (1 - factors.bald)


class Hair:
    """The hair of one picture: where it is in front of the face, where behind, and its lit colour."""

    def __init__(self, factors: FaceFactors, pose: Pose, light: Light) -> None:
        self.factors = factors
        self.end_v = -2 + 122 * factors.hair_length  # where the hair at the sides ends
        profile = _hair_profile(factors)
        self.where = _hair_window(factors, pose, self.end_v)
        self.v = pose.y[self.where]
        self.shell = see_shell(solve_slices(profile, pose), pose, self.where)
        half_width = profile.half_width.take(pose.rows[self.where], mode="clip")
        self.ratio = self.shell.u / np.maximum(half_width, np.float32(1))
        self.side = np.abs(self.ratio)
        across = self._across(pose)
        self.noise = sample_strands(across, self.v * 0.004)
        self.coarse = sample_strands(across * 0.31 + 0.4, self.v * 0.003)
        self.colour = self._lit_colour(light)

    def _across(self, pose: Pose) -> Plane:
        """Which strand a pixel shows: meridians of the crown, or domes around the face where the hair is parted."""
        s = self.shell.across
        meridian = s * (1 + 0.3 * s * s) + 0.8 * pose.sin_yaw  # nearly the angle around the head
        up = np.minimum(self.v - 20, np.float32(0)) * (1 / 100)
        dome = np.sqrt(meridian * meridian * 0.8 + up * up) * (1 + 0.15 * np.sign(meridian))
        share = 0.9 * parted(self.factors)
        # Short hair without a fringe is brushed up: its strands spread instead of meeting at the crown.
        brushed = (1 - self.factors.fringe) * (1 - min(1.0, self.factors.hair_length * 2.5))
        meridian = meridian * (1 + brushed * (0.45 + 0.9 * up))
        across = (1 - share) * meridian + share * dome
        wave = np.sin(self.v * 0.15 + 2.5 * s) * (0.04 * self.factors.hair_wave)
        return (across + wave) * 0.19

    def _lit_colour(self, light: Light) -> Layer:
        factors, v = self.factors, self.v
        base = hair_colour(factors)
        y = np.minimum(v - 2, np.float32(0)) * (1 / 92)
        x = self.shell.across * 0.82
        normal = (x, y * 0.8, np.sqrt(np.maximum(1 - x * x - y * y * 0.64, np.float32(0.05))))
        facing = towards_light(normal, light)
        shade = light.fill * 0.85 + light.lamp * np.maximum(facing * 0.85 + 0.15, np.float32(0.04))
        shade *= 0.42 + 0.55 * self.noise + 0.48 * self.coarse
        if parted(factors) > 0:
            shade *= 1 - 0.35 * parted(factors) * bump(self.ratio, v + 70, 0.09, 45)
        ring = bump(v * 0, v + 46 + 9 * (self.coarse - 0.5) - 16 * self.ratio**2, 1, 20)
        ring += 0.5 * bump(v * 0, v - 30 + 16 * (self.coarse - 0.5), 1, 32)
        gloss = ring * self.noise * unit(facing * 1.3) * (light.lamp * (1.1 - 0.4 * factors.hair_wave))
        return base.reshape(3, 1, 1) * shade + (base * 0.6 + 0.03).reshape(3, 1, 1) * gloss

    def depth_in_front(self) -> Plane:
        """Pixels inside the border between the hair in front of the face and the skin, negative on the skin."""
        factors, v = self.factors, self.v
        ragged = (self.noise - 0.5) * 3.0
        line = hairline(factors).take((self.side * 128).astype(np.int64), mode="clip")
        distance = line - v + ragged * (0.8 + 2.0 * factors.fringe)
        end = self.end_v + (self.coarse - 0.5) * (2 + 14 * factors.hair_length) - v
        cover = 0.95 - 0.10 * factors.hair_length * (1 - factors.bald) - 0.06 * factors.bald
        opening = cover - 0.4 * smooth((v - 45) * 0.02)  # long hair falls before the shoulders
        sides = np.minimum((self.side - opening) * (factors.face_width + 6), end)
        behind = -5 + 20 * smooth(end * 0.02 + 0.1) * min(1.0, 2 * factors.hair_length) - self.shell.w
        behind = np.minimum(behind, np.maximum(end, 20 - v))
        below_bald = np.minimum(np.maximum(sides, behind), self._bald_limit())
        return np.maximum(distance, below_bald)

    def back(self) -> Plane:
        """Share of each pixel covered by hair behind head and neck."""
        end = (
            np.maximum(self.end_v + (self.coarse - 0.5) * (2 + 14 * self.factors.hair_length), np.float32(24)) - self.v
        )
        return coverage(np.minimum(end, self._bald_limit()), 2.5) * self.silhouette()

    def _bald_limit(self) -> Plane:
        return self.v + 120 - 98 * min(1.0, 1.25 * self.factors.bald)

    def silhouette(self) -> Plane:
        return coverage(self.shell.edge + (self.coarse - 0.6) * (1.0 + self.factors.hair_wave), 2.0)


def hair_volume(factors: FaceFactors) -> float:
    """Thickness of the hair over the skull, pixels."""
    return (3.5 + 6 * factors.hair_length**0.7 + 4 * factors.hair_wave) * (1 - 0.7 * factors.bald)


def _hair_window(factors: FaceFactors, pose: Pose, end_v: float) -> tuple[slice, slice]:
    bottom, lean = max(end_v, 24) + 9, abs(math.sin(math.radians(factors.head_tilt)))
    shift = -0.72 * half_depth(factors) * pose.sin_yaw
    reach = factors.face_width + 20 + 9 * abs(pose.sin_yaw) + max(lean * 90, lean * bottom)
    reach += 0.22 * max(end_v, 0) * factors.hair_length
    return window(shift - reach, skull_top(factors) - 14, shift + reach, bottom + 55 * lean)


def _hair_profile(factors: FaceFactors) -> Profile:
    """Around the skull with some volume; below the cheeks it hangs, wider when long and waved."""
    length, wave = factors.hair_length, factors.hair_wave
    volume = hair_volume(factors)
    is_upper = PROFILE_V < WIDEST_V
    upper = (WIDEST_V - PROFILE_V) / (WIDEST_V - skull_top(factors) + volume * 0.8)
    hang = np.maximum(PROFILE_V - WIDEST_V, 0) / 100
    width = (factors.face_width + volume) * np.where(is_upper, round_off(upper, 2.7, 0.48), 1)
    width += hang * (14 + 10 * wave) * length - 10 * (1 - length) * hang
    width += wave * 2.2 * np.sin(PROFILE_V * 0.15) * unit(hang * 5)
    depth = (half_depth(factors) + volume) * np.where(is_upper, round_off(upper, 2.6, 0.5), 1)
    return Profile(width.astype(np.float32), np.maximum(depth, 1).astype(np.float32))


def draw_back_hair(canvas: Layer, hair: Hair) -> None:
    paint(canvas[:, *hair.where], hair.colour * 0.42, hair.back())


def draw_front_hair(canvas: Layer, hair: Hair) -> None:
    """Softly at the roots, sharply at a fringe; the rim towards the face lies in the hair's own shade."""
    depth = hair.depth_in_front()
    rim = 0.62 + 0.38 * unit(depth * 0.14)
    alpha = coverage(depth, 4.5 - 2.5 * hair.factors.fringe) * hair.silhouette()
    paint(canvas[:, *hair.where], hair.colour * rim, alpha)
