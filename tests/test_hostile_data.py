"""Zip files, pictures and annotation files from strangers: no name leads elsewhere, nothing grows beyond what it is."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ATTRIBUTE_NAMES
from PIL import Image

from vae_lightning.data import DataError
from vae_lightning.data.decoded.image_files import MOST_PIXELS, jpeg_size
from vae_lightning.data.decoded.preprocessing import Preprocessing
from vae_lightning.data.preparation.checking import check_celeba
from vae_lightning.data.preparation.layouts import explain_other_folder
from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.tables import read_table
from vae_lightning.data.sources.zip_store import MOST_IMAGE_BYTES, ZipStore
from vae_lightning.runs.photographs import open_photographs

Celeba = Callable[..., Path]
PACKED = b"picture " * 100


def write_zip(path: Path, *names: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, PACKED)
    return path


def test_names_in_a_zip_file_lead_nowhere(tmp_path: Path) -> None:
    names = ("../../up.jpg", "/etc/absolute.jpg", "C:\\windows.jpg", "a/../b.jpg", "folder/")
    path = write_zip(tmp_path / "deep" / "images.zip" if (tmp_path / "deep").mkdir() is None else tmp_path, *names)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    store = ZipStore(path)
    assert {"up.jpg", "absolute.jpg", "b.jpg", "link.jpg"} <= store.names
    assert store.read("up.jpg") == store.read("b.jpg") == PACKED
    assert store.read("link.jpg") == b"/etc/passwd"  # its own bytes, not those of the file that it names
    assert sorted(tmp_path.rglob("*")) == before


def entry_field(content: bytes, offset: int, form: str, value: int) -> bytes:
    """The first entry of the directory, changed. Source: APPNOTE.TXT 4.3.12."""
    changed = bytearray(content)
    struct.pack_into(form, changed, content.index(b"PK\x01\x02") + offset, value)
    return bytes(changed)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "unpacks to more": lambda content: entry_field(content, 24, "<I", 10),
    "unpacks to less": lambda content: entry_field(content, 24, "<I", 2**27),
    "unpacks to too much": lambda content: entry_field(content, 24, "<I", 2**32 - 2),
    "has more bytes than the file": lambda content: entry_field(content, 20, "<I", 2**32 - 2),
    "begins beyond the file": lambda content: entry_field(content, 42, "<I", 2**31),
    "begins elsewhere": lambda content: entry_field(content, 42, "<I", 7),
    "other checksum": lambda content: entry_field(content, 16, "<I", 1),
    "encrypted": lambda content: entry_field(content, 8, "<H", 1),
    "packed in another way": lambda content: entry_field(content, 10, "<H", 12),
    "zip64 without its numbers": lambda content: entry_field(content, 24, "<I", 2**32 - 1),
    "a longer name": lambda content: entry_field(content, 28, "<H", 60_000),
    "directory elsewhere": lambda content: content[:-6] + struct.pack("<I", 2**31) + content[-2:],
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("lie", LIES)
def test_zip_files_that_lie_are_refused(lie: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "images.zip", "000001.jpg", "000002.jpg")
    path.write_bytes(LIES[lie](path.read_bytes()))
    with pytest.raises(DataError, match=r"images\.zip") as caught:
        ZipStore(path).read("000001.jpg")
    assert str(caught.value).isprintable()


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_a_bomb_in_a_zip_file_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("000001.jpg", "w") as entry:
        for _ in range(MOST_IMAGE_BYTES // 2**20 + 1):
            entry.write(bytes(2**20))
    with pytest.raises(DataError, match=r"has 269,484,032 bytes, more than the 268,435,456 of any image"):
        ZipStore(path).read("000001.jpg")
    content = path.read_bytes()
    path.write_bytes(entry_field(content, 24, "<I", 1_000))  # claims 1 KB
    with pytest.raises(DataError, match="do not match their checksum"):
        ZipStore(path).read("000001.jpg")


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "images.zip", "a/000001.jpg", "b/000001.jpg", "__MACOSX/._000001.jpg")
    assert ZipStore(path).read("000001.jpg") == PACKED  # the same twice
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("c/000001.jpg", b"another")
    with pytest.raises(DataError, match=r"two different images of one name, a/000001\.jpg and c/000001\.jpg"):
        ZipStore(path).read("000001.jpg")


@pytest.mark.slow
def test_a_directory_of_a_million_entries_is_read(tmp_path: Path) -> None:
    path, count = tmp_path / "images.zip", 1_000_000
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(b""), 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(local)
        for number in range(count):
            name = b"%07d.jpg" % number
            file.write(
                struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), *[0] * 6) + name
            )
        size = file.tell() - len(local)
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, len(local)))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + size, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    store = ZipStore(path)
    assert len(store.names) == count
    assert store.read("0999999.jpg") == b""


def test_a_damaged_zip_file_beside_the_data_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "archive.zip", "000001.jpg")
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09"))
    with pytest.raises(DataError, match=r"archive\.zip is damaged"):
        explain_other_folder(tmp_path)


def encoded(kind: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, "tan").save(written, kind, **options)
    return written.getvalue()


def claiming(kind: str, width: int, height: int, **options: object) -> bytes:
    """A small picture whose header says another size."""
    content = bytearray(encoded(kind, **options))
    if kind == "jpeg":
        frame = next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := content.find(marker)) > 0)
        struct.pack_into(">HH", content, frame + 5, height, width)
    elif kind == "png":
        struct.pack_into(">II", content, 16, width, height)
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    elif kind == "gif":
        struct.pack_into("<HH", content, 6, width, height)
    elif kind == "bmp":
        struct.pack_into("<ii", content, 18, width, height)
    elif kind == "ppm":
        return b"P6\n%d %d\n255\n" % (width, height) + bytes(content[13:])
    else:
        first = int.from_bytes(content[4:8], "little")
        for entry in range(first + 2, first + 2 + 12 * int.from_bytes(content[first : first + 2], "little"), 12):
            tag, kind_of_value = struct.unpack_from("<HH", content, entry)
            if tag in (256, 257):
                struct.pack_into(
                    "<H" if kind_of_value == 3 else "<I", content, entry + 8, width if tag == 256 else height
                )
    return bytes(content)


CLAIMS = [
    ("jpeg", {}),
    ("jpeg", {"progressive": True}),
    ("png", {}),
    ("gif", {}),
    ("bmp", {}),
    ("ppm", {}),
    ("tiff", {}),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("kind", "options"), CLAIMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_picture_that_claims_60000_pixels_a_side_is_refused_unseen(
    kind: str, options: dict[str, object], tmp_path: Path
) -> None:
    for width, height in ((60_000, 60_000), (9_000, 6_000)):
        content = claiming(kind, width, height, **options)
        (tmp_path / "large").write_bytes(content)
        with pytest.raises(DataError, match=r"more than 50 million|it is too large"):
            Preprocessing(None, 64)(content)
        with pytest.raises(DataError, match=r"large: .*(more than 50 million|it is too large)"):
            open_photographs([tmp_path / "large"])


@pytest.mark.usefixtures("little_memory")
def test_a_cache_and_a_check_do_not_decode_a_picture_that_is_too_large(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    (root / "img_align_celeba" / "000004.jpg").write_bytes(claiming("jpeg", 60_000, 60_000))
    check = check_celeba(root, 148)
    assert any(
        "000004.jpg: it has 60000x60000 pixels, more than 50 million" in name
        for each in check.problems
        for name in each.names
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 48), (48, 64)])
def test_the_size_of_a_jpeg_file_is_what_pillow_says(width: int, height: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in (
        {},
        {"progressive": True},
        {"exif": exif},
        {"comment": b"\xff\xc0" * 9},
        {"icc_profile": b"x" * 99},
    ):
        assert jpeg_size(encoded("jpeg", (width, height), **options)) == (width, height)
    assert jpeg_size(encoded("png")) is None
    assert jpeg_size(encoded("jpeg")[:40]) is None
    assert MOST_PIXELS >= 8064 * 6048  # of a telephone's photograph


def test_a_format_for_which_pillow_starts_a_program_is_no_image() -> None:
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="no image that can be decoded"):
        Preprocessing(None, 8)(page)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_a_bomb_in_the_text_of_a_picture_is_not_unpacked() -> None:
    content = encoded("png")
    for kind, body in ((b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"profile\0\0")):
        body += zlib.compress(bytes(400 * 2**20), 1)
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        try:
            assert Preprocessing(None, 8)(content[:33] + chunk + content[33:]).shape == (8, 8, 3)
        except DataError as error:
            assert "too large" in str(error) or "cannot be decoded" in str(error)  # noqa: PT017 (either is right)


NAMES = {
    "up": "../000001.jpg",
    "absolute": "/etc/passwd",
    "backslash": "..\\000001.jpg",
    "escape": "\x1b[2J.jpg",
    "nul": "a\0b.jpg",
    "latin-1": "é.jpg",
    "long": "a" * 10**6,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_image_stays_in_the_folder(name: str, tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    for file in ("list_eval_partition.txt", "list_attr_celeba.txt", "identity_CelebA.txt"):
        content = (root / file).read_bytes()
        (root / file).write_bytes(content.replace(b"000003.jpg", NAMES[name].encode("latin-1")))
    with pytest.raises(DataError, match=r"list_eval_partition\.txt lists .* no name of an image") as caught:
        read_celeba(root)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert "no name of an image" in check_celeba(root, 148).problems[0].title


def edited(root: Path, change: Callable[[bytes], bytes], file: str = "list_attr_celeba.txt") -> Path:
    (root / file).write_bytes(change((root / file).read_bytes()))
    return root


GOOD: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "no line at the end": lambda content: content.rstrip(b"\n"),
    "empty lines at the end": lambda content: content + b"\n\n \n",
}
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "written in UTF-16: save it as UTF-8"),
    "repeated row": (
        lambda content: content.replace(b"000004.jpg", b"000003.jpg"),
        r"lists 000003\.jpg more than once",
    ),
    "repeated attribute": (
        lambda content: content.replace(b"bute_07", b"bute_08"),
        "names Attribute_08 more than once",
    ),
    "terminal's name": (lambda content: content.replace(b"Attribute_07", b"\x1b[31mA"), "is no name of a column"),
    "path for a name": (lambda content: content.replace(b"Attribute_07", b"../../A"), "is no name of a column"),
    "long line": (lambda content: content.replace(b"000003.jpg", b"x " * 500_000), r"line 5: found 'x' for 'x'"),
    "long value": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg " + b"7" * 10**6), r"found '7{80}…'"),
    "fraction": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg 1.5"), "found '1.5'"),
    "huge count": (lambda content: b"9" * 5_000 + content, "expected 40"),
    "quotes": (lambda content: content.replace(b"000003.jpg -1", b'000003.jpg "1"'), "found '\"1\"'"),
    "nul": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg \0"), "found"),
    "header only": (lambda content: b"\n".join(content.split(b"\n")[:2]), "has no rows"),
    "carriage returns": (lambda content: content.replace(b"\n", b"\r"), "attributes, expected 40"),
    "empty": (lambda content: b"", "has no rows|expected 40"),
}


@pytest.mark.parametrize("case", GOOD)
def test_odd_annotation_files_are_read(case: str, tiny_celeba: Celeba) -> None:
    expected = read_celeba(tiny_celeba(10, name="whole")).attributes
    found = read_celeba(edited(tiny_celeba(10, name="odd"), GOOD[case])).attributes
    assert found is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", BAD)
def test_damaged_annotation_files_are_explained_in_one_short_line(case: str, tiny_celeba: Celeba) -> None:
    change, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        read_celeba(edited(tiny_celeba(10), change))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_table_from_kaggle_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = "".join(f"{number:06d}.jpg,{','.join(['-1', '1'] * 20)}\r\n" for number in range(3))
    (tmp_path / "attributes.csv").write_text(f"image_id,{','.join(ATTRIBUTE_NAMES)}\r\n{rows}", encoding="utf-8-sig")
    table = read_table(tmp_path / "attributes.csv", allowed=(-1, 1))
    assert table.column_names == tuple(ATTRIBUTE_NAMES)
    assert len(table.filenames) == 3
