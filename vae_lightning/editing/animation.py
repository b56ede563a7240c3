"""Writes frames as an animation: GIF, which every program shows, or MP4, which takes a twentieth of the bytes."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vae_lightning.system.extras import check_extra
from vae_lightning.system.whole_files import replacing

Frames = UInt8[Tensor, "frames channels height width"]

SIDE = 256  # smaller frames are enlarged by the largest whole factor that stays within it, so that pixels stay sharp
FPS = (0.1, 50)  # browsers slow a GIF down that asks for more
QUALITY = "18"  # x264's constant rate factor: lower values look the same
BT709 = 1  # as primaries, transfer and matrix, ITU-T H.273, tables 2 to 4


def write_gif(path: Path, frames: Frames, fps: float = 25) -> None:
    """Writes a GIF that repeats for ever. Each frame has 256 colours of its own, undithered: dithering would flicker.

    A frame is shown for whole hundredths of a second, some for one more, so that all take as long as they should.
    Equal neighbours become one frame that is shown for longer.

    Raises:
        ValueError: no frames, or fps outside [0.1, 50].
    """
    _check(frames, fps)
    ends = np.round(np.arange(len(frames) + 1) * 100 / fps).astype(int) * 10  # milliseconds
    images = [_indexed(frame) for frame in frames.permute(0, 2, 3, 1).cpu().numpy()]
    with replacing(path) as unfinished:
        images[0].save(
            unfinished,
            format="gif",
            save_all=True,
            append_images=images[1:],
            duration=np.diff(ends).tolist(),
            loop=0,
            optimize=False,
        )


def write_mp4(path: Path, frames: Frames, fps: float = 25) -> None:
    """H.264 as browsers play it: 4:2:0, even sides (an odd one repeats its last pixels), index before the pictures.

    Raises:
        ValueError: no frames, fps outside [0.1, 50], or PyAV is not installed (MissingExtraError).
    """
    _check(frames, fps)
    require_pyav()
    import av
    from av.video.reformatter import ColorRange, Colorspace

    with (
        replacing(path) as unfinished,
        av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        rgb = [_even(_enlarged(frame)) for frame in frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()]
        stream = file.add_stream("libx264", Fraction(fps).limit_denominator(1000), {"crf": QUALITY})
        stream.height, stream.width = rgb[0].shape[:2]
        stream.pix_fmt, stream.color_range = "yuv420p", ColorRange.MPEG
        stream.colorspace = stream.color_primaries = stream.color_trc = (
            BT709  # players guess them where they are missing
        )
        for frame in rgb:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


def require_pyav() -> None:
    """Checks that MP4 can be written, before a caller computes the frames.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    check_extra("video", "an MP4 file", "av", otherwise="; or write a GIF")


def _check(frames: Frames, fps: float) -> None:
    low, high = FPS
    if not low <= fps <= high:
        raise ValueError(f"fps={fps:g}: expected {low:g} to {high:g} frames per second")
    if len(frames) == 0:
        raise ValueError("no frames: an animation needs at least one")


def _indexed(frame: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    """At most 256 colours: all grays as they are, of colours the best by median cut and k-means."""
    if frame.shape[2] == 1:
        return Image.fromarray(_enlarged(frame)[..., 0])
    few = Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)  # undithered
    factor = _factor(frame)
    return few.resize((few.width * factor, few.height * factor), Image.Resampling.NEAREST)


def _factor(frame: UInt8[np.ndarray, "height width channels"]) -> int:
    return max(1, SIDE // max(frame.shape[:2]))


def _enlarged(frame: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "_height _width channels"]:
    return frame.repeat(_factor(frame), axis=0).repeat(_factor(frame), axis=1)


def _even(frame: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "_height _width channels"]:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
