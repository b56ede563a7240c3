"""Annotation, zip files and pictures that are nearly right: tests/fuzzing.py."""

import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_celeba
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated
from PIL import Image

from vae_lightning.data import DataError
from vae_lightning.data.decoded.image_files import jpeg_size
from vae_lightning.data.decoded.preprocessing import Preprocessing, load_jpeg_decoder
from vae_lightning.data.rendering.dataset import read_factors
from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.zip_store import ZipStore
from vae_lightning.runs.photographs import open_photographs


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_celeba(tmp_path_factory.mktemp("celeba"), 4)
    names = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
    return {"root": root, **{name: (root / name).read_bytes() for name in names}}


@fuzzed
def test_annotation_files(celeba: dict[str, Any], number: int) -> None:
    root, names = celeba["root"], [name for name in celeba if name != "root"]
    name = names[number % 3]
    content = celeba[name]
    if number % 2:
        content = content.replace(b"\n", (b"\r\n", b"\r", b"\n")[number % 5 % 3])
    try:
        (root / name).write_bytes(mutated(content, number))
        source = read_celeba(root)
        assert all(Path(filename).name == filename for filename in source.filenames)
        source.fingerprint(np.arange(len(source.filenames)))
    except DataError as error:
        check_words(error)
    finally:
        (root / name).write_bytes(celeba[name])


@fuzzed
def test_tables_of_factors(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    content = b"filename,identity,yaw,smile\n000001.jpg,3,0.5,-1\n000002.jpg,3,1e-3,2.25\n"
    (folder_of_all(tmp_path_factory) / "factors.csv").write_bytes(mutated(content, number))
    try:
        names, values = read_factors(folder_of_all(tmp_path_factory))
        assert values.shape[1] == len(names)
    except DataError as error:
        check_words(error)


@cache
def zipped() -> tuple[bytes, ...]:
    archives = []
    for method, large in ((zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_DEFLATED, True)):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", method) as archive:
            for name in ("img_align_celeba/000001.jpg", "../000002.jpg", "/000003.jpg"):
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=large) as entry:
                    entry.write(bytes(range(200)) * 3)
        archives.append(written.getvalue())
    return tuple(archives)


@fuzzed
def test_zip_files(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "images.zip"
    path.write_bytes(mutated(zipped()[number % 3], number))
    try:
        store = ZipStore(path)
        for name in store.names:
            store.read(name)
        store.fingerprint([])
    except DataError as error:
        check_words(error)


@cache
def pictures() -> tuple[bytes, ...]:
    chance = np.random.default_rng(0)
    image = Image.fromarray(chance.integers(0, 255, (19, 17, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette, gray = image.quantize(20), Image.fromarray(chance.integers(0, 65535, (19, 17), np.uint16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "jpeg", {}),
        (image, "jpeg", {"progressive": True, "exif": exif}),
        (image.convert("CMYK"), "jpeg", {}),
        (image.convert("L"), "jpeg", {"icc_profile": b"profile" * 30, "comment": "text"}),
        (image, "png", {"exif": exif}),
        (palette, "png", {"transparency": 3}),
        (gray, "png", {}),
        (image, "png", frames),
        (image, "webp", {"quality": 50}),
        (image, "webp", {"lossless": True, **frames}),
        (image, "bmp", {}),
        (palette, "bmp", {}),
        (palette, "gif", {}),
        (image, "gif", frames),
        (image, "tiff", {"exif": exif}),
        (gray, "tiff", {"compression": "tiff_deflate"}),
        (image, "ppm", {}),
    ]
    return tuple(_encoded(image, kind, options) for image, kind, options in kinds)


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


@fuzzed
def test_pictures_of_a_data_set(number: int) -> None:
    encoded = mutated(pictures()[number % len(pictures())], number)
    try:
        assert Preprocessing(None, 8)(encoded).shape == (8, 8, 3)
    except DataError as error:
        check_words(error)
        return
    claimed, decode = jpeg_size(encoded), load_jpeg_decoder()
    if claimed is not None and decode is not None:  # what was held against the limit is what was decoded
        decoded = decode(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), 3, False)
        assert (decoded.shape[2], decoded.shape[1]) == claimed


@fuzzed
def test_photographs(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "photograph"
    path.write_bytes(mutated(pictures()[number % len(pictures())], number))
    try:
        (image,) = open_photographs([path])
        assert image.mode == "RGB"
    except DataError as error:
        check_words(error)
