"""Pictures that people bring: every kind of file becomes what a person sees, where faces are in training."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_runs import run_of

from vae_lightning.data import DataError, Preprocessing
from vae_lightning.models import LinearVAE
from vae_lightning.runs.photographs import open_photographs
from vae_lightning.runs.run import Run

RED = (200, 30, 90)
HALF_RED = (228, 143, 173)  # on white, half transparent
ORIENTATION = 0x0112  # EXIF's tag
SCENE = (178, 218)


def saved(folder: Path, image: Image.Image, name: str, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def scene(size: tuple[int, int] = SCENE) -> Image.Image:
    """Smooth and without symmetry, so that a shift, a turn or another scale shows; the same at every size."""
    across = (np.arange(size[0]) + 0.5) / size[0]
    down = ((np.arange(size[1]) + 0.5) / size[1])[:, None]
    disc = 150 * np.exp(-40 * ((across - 0.45) ** 2 + (down - 0.4) ** 2))
    pixels = np.stack([100 * across + disc + 0 * down, 80 * down + disc, 200 * across * down + 0.3 * disc], axis=-1)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def run_on(source: str, crop: int | None = 148, image_size: int = 32, color: str = "rgb") -> Run:
    settings = {"crop": crop, "image_size": image_size, "color": color}
    model = LinearVAE(image_size=image_size, color=color, latent_dim=2, hidden_dim=4)
    return run_of(model, {"config": {"data": settings}, "data": {"source": source}}, Path())


def in_training(image: Image.Image, crop: int | None = 148, size: int = 32) -> np.ndarray:
    encoded = io.BytesIO()
    image.save(encoded, format="png")
    return Preprocessing(crop, size)(encoded.getvalue()).permute(2, 0, 1).numpy().astype(int)


@pytest.mark.parametrize(
    ("image", "name", "color"),
    [
        (Image.new("RGB", (4, 4), RED), "plain.jpg", RED),
        (Image.new("RGBA", (4, 4), (*RED, 128)), "half_transparent.png", HALF_RED),
        (Image.new("RGBA", (4, 4), (*RED, 0)), "transparent.webp", (255, 255, 255)),
        (Image.new("LA", (4, 4), (100, 0)), "transparent_gray.png", (255, 255, 255)),
        (Image.new("LA", (4, 4), (100, 255)), "opaque_gray.png", (100, 100, 100)),
        (Image.new("L", (4, 4), 100), "gray.png", (100, 100, 100)),
        (Image.new("1", (4, 4), 1), "bits.png", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)), "deep_gray.png", (200, 200, 200)),
        (Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)), "deep_gray.pgm", (200, 200, 200)),
        (Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)), "deep_gray.tif", (200, 200, 200)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "print.jpg", (255, 0, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_picture_becomes_what_a_person_sees(
    tmp_path: Path, image: Image.Image, name: str, color: tuple[int, int, int]
) -> None:
    path = saved(tmp_path, image, name)
    (opened,) = open_photographs([path])
    assert (opened.mode, opened.size) == ("RGB", (4, 4))
    assert np.abs(np.asarray(opened).astype(int) - color).max() <= 3
    trained = Preprocessing(None, 8)(path.read_bytes()).numpy().astype(int)  # training reads files in the same way
    assert np.abs(trained - color).max() <= 3


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, 10, 20, 30])
    image.putpixel((0, 0), 0)
    (opened,) = open_photographs([saved(tmp_path, image, "palette.png", transparency=1)])
    assert opened.getpixel((0, 0)) == RED
    assert opened.getpixel((1, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_order_and_their_ends(tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    (opened,) = open_photographs([saved(tmp_path, Image.fromarray(levels), "all.png")])
    np.testing.assert_array_equal(np.asarray(opened)[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
@pytest.mark.parametrize("name", ["camera.jpg", "camera.png"])
def test_a_camera_that_was_turned(tmp_path: Path, orientation: int, turn: Image.Transpose, name: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, scene().transpose(turn), name, exif=exif)  # as its sensor saw it
    (upright,) = open_photographs([path])
    assert np.abs(np.asarray(upright).astype(int) - np.asarray(scene())).mean() < 2
    with Image.open(path) as untouched:
        pixels = run_on("celeba").preprocess([untouched, upright]).numpy().astype(int)
    assert np.abs(pixels[0] - in_training(scene())).mean() < 2
    np.testing.assert_array_equal(pixels[0], pixels[1])  # and not turned twice


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    path = saved(tmp_path, pictures[0], "moving.gif", save_all=True, append_images=pictures[1:])
    assert open_photographs([path])[0].getpixel((1, 1)) == RED


def damaged(folder: Path, name: str, keep: float) -> Path:
    path = saved(folder, scene(), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut.webp", "cut.tif", "cut.bmp"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, keep: float) -> None:
    path = damaged(tmp_path, name, keep)
    reason = r"it cannot be decoded \(.+\)" if keep and not name.endswith("webp") else "it "
    with pytest.raises(DataError, match=rf"{name}: {reason}.*Save it as JPEG or PNG"):
        open_photographs([path])


def test_what_is_no_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    good = saved(tmp_path, scene(), "good.png")
    with pytest.raises(DataError, match=r"text\.jpg: it is not an image that can be decoded"):
        open_photographs([good, text])
    with pytest.raises(DataError, match=r"nowhere\.png cannot be read: No such file"):
        open_photographs([good, tmp_path / "nowhere.png"])
    with pytest.raises(DataError, match=rf"{tmp_path.name} cannot be read: it is a folder"):
        open_photographs([tmp_path])
    floats = saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "floats.tif")
    with pytest.raises(DataError, match=r"floats\.tif: .*floating-point numbers: save it with 8 or 16 bits"):
        open_photographs([floats])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"good\.png: it is too large .*38804 pixels"):
        open_photographs([good])


@pytest.mark.parametrize("source", ["celeba", "faces", "noise"])
def test_a_picture_of_training_size_is_read_as_in_training(source: str) -> None:
    pixels = run_on(source).preprocess(scene()).numpy()
    np.testing.assert_array_equal(pixels[0], in_training(scene()))


@pytest.mark.parametrize("scale", [0.5, 3])
def test_a_picture_of_another_size_is_scaled_first(scale: float) -> None:
    width, height = (round(side * scale) for side in SCENE)
    pixels = run_on("celeba").preprocess(scene((width, height))).numpy()[0]
    assert np.abs(pixels - in_training(scene())).max() <= 3


@pytest.mark.parametrize("size", [(1200, 436), (356, 1000)])
def test_what_is_too_wide_or_too_high_is_cut_off_on_both_sides(size: tuple[int, int]) -> None:
    photograph = Image.new("RGB", size, (0, 255, 0))
    photograph.paste(scene((356, 436)), ((size[0] - 356) // 2, (size[1] - 436) // 2))
    pixels = run_on("celeba").preprocess(photograph).numpy()[0]
    assert np.abs(pixels - in_training(scene())).max() <= 3


def test_large_photographs_are_scaled_without_aliasing() -> None:
    stripes = np.zeros((872, 712, 3), np.uint8)
    stripes[:, ::4], stripes[:, 1::4] = 255, 255  # four pixels wide, and so is what becomes one pixel
    pixels = run_on("celeba").preprocess(Image.fromarray(stripes)).numpy().astype(int)
    assert np.abs(pixels - 127.5).max() <= 4


def test_a_box_lies_where_it_lay_in_training() -> None:
    run = run_on("celeba")
    run.config["data"]["crop"] = [15, 40, 163, 188]
    pixels = run.preprocess([scene(), scene((712, 872))]).numpy().astype(int)
    assert np.abs(pixels[0] - pixels[1]).max() <= 3
    assert np.abs(pixels[0] - in_training(scene(), (15, 40, 163, 188))).max() == 0


def test_a_run_on_squares_takes_the_largest_centred_square() -> None:
    wide = ImageOps.pad(scene((400, 400)), (900, 400), color=(0, 255, 0))
    pixels = run_on("celeba", crop=None).preprocess(wide).numpy()[0]
    np.testing.assert_array_equal(pixels, in_training(scene((400, 400)), None))


def test_a_run_on_a_folder_crops_what_it_is_given() -> None:
    run = run_on("folder", crop=100)
    large = scene((300, 300))
    np.testing.assert_array_equal(run.preprocess(large).numpy()[0], in_training(large.crop((100, 100, 200, 200)), None))
    with pytest.raises(DataError, match="90x300 pixels, less than the crop of 100"):
        run.preprocess(scene((90, 300)))


def test_gray_runs_take_pictures_of_every_kind() -> None:
    run = run_on("celeba", color="gray")
    deep = Image.fromarray(np.full((50, 40), 200 * 257, np.uint16))
    pixels = run.preprocess([deep, Image.new("RGBA", (50, 40), (*RED, 0))])
    assert pixels.shape == (2, 1, 32, 32)
    assert pixels.flatten(1).unique(dim=1).flatten().tolist() == [200, 255]
    assert run.reconstruct([deep]).shape == (1, 1, 32, 32)
