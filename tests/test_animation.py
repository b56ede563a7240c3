"""Animations, read back by what shows them."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from vae_lightning.editing.animation import require_pyav, write_gif, write_mp4

NO_VIDEO = "needs the extra video: pip install -e '.[video]'"


def moving_gradients(count: int, height: int = 64, width: int = 64, channels: int = 3) -> Tensor:
    """Smooth, many colours, each frame another."""
    across, down = torch.linspace(0, 1, width), torch.linspace(0, 1, height)[:, None]
    frames = [
        torch.stack([255 * across * down, 200 * across + 50 * down * time, 255 * (1 - down * across) * time])
        for time in torch.linspace(0, 1, count)
    ]
    return torch.stack(frames).round().to(torch.uint8)[:, :channels]


def read_gif(path: Path) -> tuple[np.ndarray, list[int]]:
    with Image.open(path) as animation:
        assert animation.format == "GIF"
        frames = [
            (np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(animation)
        ]
    pictures, durations = zip(*frames, strict=True)
    return np.stack(pictures), list(durations)


def error(shown: np.ndarray, frames: Tensor) -> np.ndarray:
    """In levels, where each pixel is shown as a square."""
    factor = shown.shape[1] // frames.shape[2]
    expected = frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy().repeat(factor, axis=1).repeat(factor, axis=2)
    return np.abs(shown.astype(int) - expected)


def test_a_gif_has_the_frames_their_time_and_nearly_their_colours(tmp_path: Path) -> None:
    frames = moving_gradients(8)
    write_gif(tmp_path / "new" / "faces.gif", frames, fps=30)
    shown, durations = read_gif(tmp_path / "new" / "faces.gif")
    assert shown.shape == (8, 256, 256, 3)
    assert error(shown, frames).mean() < 3
    assert durations == [30, 40, 30, 30, 40, 30, 30, 40]  # 8/30 s in whole hundredths, each end rounded
    with Image.open(tmp_path / "new" / "faces.gif") as animation:
        assert animation.info["loop"] == 0  # for ever
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["faces.gif"]


def test_what_does_not_change_does_not_flicker(tmp_path: Path) -> None:
    frames = moving_gradients(1).expand(6, -1, -1, -1).clone()
    frames[:, :, :8, :8] = torch.arange(0, 240, 40, dtype=torch.uint8)[:, None, None, None]
    write_gif(tmp_path / "faces.gif", frames)
    shown, _ = read_gif(tmp_path / "faces.gif")
    changes = np.abs(np.diff(shown.astype(int), axis=0))[:, 32:]
    assert changes.mean() < 1


def test_gray_frames_keep_every_level(tmp_path: Path) -> None:
    frames = moving_gradients(3, channels=1).roll(1, dims=0)
    frames[1:] //= torch.tensor([2, 3], dtype=torch.uint8)[:, None, None, None]
    write_gif(tmp_path / "gray.gif", frames)
    shown, _ = read_gif(tmp_path / "gray.gif")
    assert error(shown, frames).max() == 0


def test_one_frame_and_large_frames_are_written_as_they_are(tmp_path: Path) -> None:
    frames = moving_gradients(1, height=150, width=130, channels=1)
    write_gif(tmp_path / "one.gif", frames)
    with Image.open(tmp_path / "one.gif") as still:
        assert (still.n_frames, still.size) == (1, (130, 150))
        assert error(np.asarray(still.convert("RGB"))[None], frames).max() == 0


def test_equal_frames_are_shown_as_long_as_they_last(tmp_path: Path) -> None:
    write_gif(tmp_path / "still.gif", moving_gradients(1).expand(7, -1, -1, -1), fps=10)
    with Image.open(tmp_path / "still.gif") as still:
        assert (still.n_frames, still.info["duration"]) == (1, 700)


@pytest.mark.extra
@pytest.mark.parametrize("channels", [3, 1])
def test_an_mp4_has_the_frames_their_time_and_nearly_their_colours(tmp_path: Path, channels: int) -> None:
    av = pytest.importorskip("av", reason=NO_VIDEO)
    frames = moving_gradients(7, channels=channels)
    write_mp4(tmp_path / "faces.mp4", frames, fps=12.5)
    with av.open(str(tmp_path / "faces.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 12.5)
        assert file.duration / av.time_base == pytest.approx(7 / 12.5, abs=0.01)
        decoded = list(file.decode(stream))
    assert {int(frame.colorspace) for frame in decoded} == {1}  # BT.709, said in the file
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    assert shown.shape == (7, 256, 256, 3)
    assert error(shown, frames).mean() < 3
    content = (tmp_path / "faces.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # it starts before all of it has come
    assert [path.name for path in tmp_path.iterdir()] == ["faces.mp4"]


@pytest.mark.extra
def test_an_mp4_of_one_odd_frame_has_even_sides(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason=NO_VIDEO)
    colour = torch.tensor([200, 30, 90], dtype=torch.uint8)[None, :, None, None]
    write_mp4(tmp_path / "one.mp4", colour.expand(1, 3, 9, 11))
    with av.open(str(tmp_path / "one.mp4")) as file:
        (frame,) = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert frame.shape == (208, 254, 3)  # 23 times 9 x 11, and one row and column more
    assert np.abs(frame.astype(int) - [200, 30, 90]).max() <= 3


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    missing = r"an MP4 file needs the extra `video`.*; or write a GIF"
    with pytest.raises(ValueError, match=missing):
        require_pyav()
    with pytest.raises(ValueError, match=missing):
        write_mp4(tmp_path / "faces.mp4", moving_gradients(2))
    write_gif(tmp_path / "faces.gif", moving_gradients(2))
    assert [path.name for path in tmp_path.iterdir()] == ["faces.gif"]


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_what_is_no_animation(tmp_path: Path, write: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=r"fps=60: expected 0\.1 to 50 frames per second"):
        write(tmp_path / "faces", moving_gradients(2), 60)
    with pytest.raises(ValueError, match="no frames"):
        write(tmp_path / "faces", moving_gradients(2)[:0])
    assert not list(tmp_path.iterdir())
