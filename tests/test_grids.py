import numpy as np
import pytest
import torch

from vae_lightning.pictures.grids import GAP, labelled_grid, tile


def numbered_images(rows: int = 2, columns: int = 3, channels: int = 3, size: int = 64) -> torch.Tensor:
    levels = torch.arange(rows * columns, dtype=torch.uint8).reshape(rows, columns, 1, 1, 1) * 40
    return levels.expand(rows, columns, channels, size, size).contiguous()


@pytest.mark.parametrize("channels", [1, 3])
def test_tile_keeps_every_pixel_at_its_place(channels: int) -> None:
    images = numbered_images(channels=channels)
    picture = tile(images)
    assert picture.shape == (2 * 128 + GAP, 3 * 128 + 2 * GAP, 3)
    for row in range(2):
        for column in range(3):
            cell = picture[row * (128 + GAP) :, column * (128 + GAP) :][:128, :128]
            assert (cell == 40 * (3 * row + column)).all()


def test_dark_images_stay_dark() -> None:
    """Pictures that stretch each image's range of grays would show a difference that is not there."""
    dim = torch.randint(0, 10, (1, 2, 3, 64, 64), dtype=torch.uint8)
    assert tile(dim)[:, :128].max() < 10


def test_labels_surround_the_untouched_tiles() -> None:
    images = numbered_images()
    picture = labelled_grid(images, ["original", "reconstruction"], ["a", "b", "c"], "Title")
    tiles = tile(images)
    height, width = tiles.shape[:2]
    inside = picture[-10 - height : -10, -10 - width : -10]
    assert np.array_equal(inside, tiles)
    outside = picture[:, : -10 - width]
    assert outside.min() < 100  # words are drawn
    assert (outside == 255).mean() > 0.8


def test_wrong_number_of_labels() -> None:
    with pytest.raises(ValueError, match="2 x 3 images, but 1 row"):
        labelled_grid(numbered_images(), ["one"])
