"""From ground-truth factors to a picture of a face: a pure function."""

import numpy as np
from jaxtyping import UInt8

from vae_lightning.data.rendering.factors import FaceFactors
from vae_lightning.data.rendering.features import paint_beard, paint_brows, paint_eyes, paint_nostrils, paint_skin
from vae_lightning.data.rendering.hair import Hair, draw_back_hair, draw_front_hair, hairline
from vae_lightning.data.rendering.hat import brim_v, draw_hat
from vae_lightning.data.rendering.head import (
    Face,
    Light,
    Pose,
    chin_v,
    make_light,
    make_pose,
    nose_tip_v,
    see_face,
    towards_light,
)
from vae_lightning.data.rendering.mouth import paint_mouth
from vae_lightning.data.rendering.scene import draw_background, draw_body, draw_ears, draw_glasses
from vae_lightning.data.rendering.shapes import HEIGHT, WIDTH, Layer, Plane, bump, paint, smooth, unit


def draw_face(factors: FaceFactors) -> UInt8[np.ndarray, "218 178 3"]:
    """(218, 178, 3) uint8 RGB, framed like CelebA's aligned pictures. The same factors give the same bytes."""
    pose, light = make_pose(factors), make_light(factors)
    face = see_face(factors, pose)
    hair = Hair(factors, pose, light)
    canvas = draw_background(factors, light)
    draw_back_hair(canvas, hair)
    draw_body(canvas, factors, pose, light)
    head = np.zeros((HEIGHT, WIDTH), np.float32)
    head[face.where] = face.mask
    paint(canvas[:, *face.where], _lit_face(factors, pose, face, light), face.mask)
    draw_ears(canvas, factors, pose, light, head)
    draw_glasses(canvas, factors, pose, light, head)
    draw_front_hair(canvas, hair)
    draw_hat(canvas, factors, pose, light)
    return _develop(canvas)


def _lit_face(factors: FaceFactors, pose: Pose, face: Face, light: Light) -> Layer:
    layer = paint_skin(factors, face)
    paint_nostrils(factors, face, layer)
    paint_brows(factors, face, layer)
    paint_beard(factors, face, layer)
    gloss = paint_mouth(factors, face, layer)
    glint = paint_eyes(factors, face, layer, pose.sin_yaw)
    facing = towards_light(face.normal, light)
    shadow = _shadows(factors, face, light)
    lamp = np.maximum(facing, np.float32(0)) * shadow * light.lamp
    fill = light.fill * (0.72 + 0.28 * face.normal[2] - 0.16 * face.normal[1])
    # Light that has travelled through skin is red: it fills the edge of the lamp's shadow.
    edge = bump(facing - 0.08, facing * 0, 0.45, 1) * (0.12 * light.lamp)
    layer[0] *= lamp * 1.03 + fill + edge
    layer[1] *= lamp + fill + edge * 0.35
    layer[2] *= lamp * 0.95 + fill * 1.04 + edge * 0.2
    layer += _sheen(face, light) * shadow + gloss * light.lamp * 2.0
    layer += glint
    return layer


def _sheen(face: Face, light: Light) -> Plane:
    """Blinn's highlight with exponent 16, weak, as of skin."""
    x, y, z = light.direction
    length = float(np.sqrt(x * x + y * y + (z + 1) ** 2))
    normal_x, normal_y, normal_z = face.normal
    shine = np.maximum(normal_x * (x / length) + normal_y * (y / length) + normal_z * ((z + 1) / length), np.float32(0))
    for _ in range(4):
        shine = shine * shine
    return shine * (0.085 * light.lamp)


def _shadows(factors: FaceFactors, face: Face, light: Light) -> Plane:
    """Share of the lamp's light that arrives: shadows of nose, brows, hair and chin, with soft edges."""
    u, v = face.u, face.v
    away = -light.direction[0]
    tip = nose_tip_v(factors)
    nose = bump(u - away * 13, v - tip - 3, 13, 12) * smooth(np.abs(u) * 0.16) * (0.3 + 0.5 * abs(away))
    nose += bump(u - away * 5, v - tip - 8, 9, 7) * 0.3
    socket = bump(np.abs(u) - factors.eye_spacing + 6, v + 5, 13, 8) * 0.34
    line = hairline(factors).take((np.abs(u + away * 6) * (128 / factors.face_width)).astype(np.int64), mode="clip")
    if factors.hat > 0:
        line = np.maximum(line, np.float32(brim_v(factors)))
    hair = unit((line + 9 - v) * 0.09) * 0.5
    chin = smooth((v - chin_v(factors) + 9) * 0.12) * 0.7
    return 1 - unit(nose + socket + hair + chin)


def _develop(canvas: Layer) -> UInt8[np.ndarray, "218 178 3"]:
    """Linear light CHW -> sRGB-like uint8 HWC, highlights rolled off."""
    light = np.maximum(canvas, np.float32(0))
    rolled = light * 0.16
    rolled += 1
    light /= rolled
    light *= 1.12
    np.minimum(light, np.float32(1), out=light)
    picture = np.sqrt(light, out=light)
    picture *= 255
    picture += 0.5
    result: UInt8[np.ndarray, "218 178 3"] = np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))
    return result
