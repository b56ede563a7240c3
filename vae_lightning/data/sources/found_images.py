"""Finds the images in a folder and its sub-folders, and counts by reason what is left out."""

import os
from collections import Counter
from pathlib import Path

from vae_lightning.data.sources.image_names import is_image
from vae_lightning.data.sources.source import DataError
from vae_lightning.data.sources.split_folders import names_split

# pictures all the same, which nothing here decodes
OTHER_PICTURES = frozenset(
    (".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".dng", ".cr2", ".nef", ".arw", ".raw", ".svg", ".ico")
)
KINDS_NAMED = 8  # of files that are left out
HIDDEN = "hidden"
BROKEN = "links that lead nowhere"
REPEATED = "links to what is read anyway or lies around it"
ODD = "pipes, sockets or devices"

Identity = tuple[int, int]  # device and inode


class FoundImages:
    """The images below a folder.

    Links are followed, and each folder and linked file is read once: the same picture in two splits would be tested
    on after it was trained on. What lies there goes before what is linked, but for links in folders such as train/.

    Args:
        root: the folder.
        at_most: stops when it has found so many.

    Raises:
        DataError: a folder that cannot be read.
    """

    def __init__(self, root: Path, at_most: int | None = None) -> None:
        self.root = root
        self.names: list[str] = []  # relative to `root`, with forward slashes, sorted
        self.left_out: Counter[str] = Counter()  # files by reason
        self.endings: Counter[str] = Counter()  # of files that are not read as images
        self._at_most = at_most
        self._file_links: list[str] = []
        self._folder_links = [""]  # the root itself is read as if something led to it
        self._seen = {_identity(parent.stat()) for parent in root.resolve().parents}
        try:
            while self._folder_links and not self._has_enough:
                self._read_tree(self._folder_links.pop(0))
            self._add_linked_files()
        except OSError as error:
            raise DataError(
                f"{error.filename} cannot be read: {error.strerror}. It may hold images: make it readable, or move it "
                f"out of {root}."
            ) from error
        self.names = sorted(self.names)[:at_most]

    @property
    def _has_enough(self) -> bool:
        return self._at_most is not None and len(self.names) >= self._at_most

    def _read_tree(self, top: str) -> None:
        pending = [top]
        while pending and not self._has_enough:
            pending += self._read_folder(pending.pop())
        self._folder_links.sort()

    def _read_folder(self, prefix: str) -> list[str]:
        """Returns its sub-folders; `prefix` is empty or ends with a slash."""
        path = self.root / prefix
        identity = _identity(path.stat())
        if identity in self._seen:
            self.left_out[REPEATED] += 1
            return []
        self._seen.add(identity)
        with os.scandir(path) as entries:
            folders = [entry for entry in entries if self._is_folder(entry, prefix)]
        return [
            f"{prefix}{entry.name}/" for entry in sorted(folders, key=os.DirEntry.is_symlink)
        ]  # links are read first

    def _is_folder(self, entry: os.DirEntry[str], prefix: str) -> bool:
        """Whether an entry is a folder to read; all others are sorted by kind here."""
        name = prefix + entry.name
        if entry.name.startswith("."):
            self.left_out[HIDDEN] += self._count_files(entry)
        elif entry.is_symlink() and not (names_split(entry.name) and entry.is_dir()):
            is_folder = Path(entry.path).is_dir()  # False for a link that leads nowhere, or to itself
            (self._folder_links if is_folder else self._file_links).append(name + "/" * is_folder)
        elif entry.is_dir():
            return True
        elif entry.is_file():
            self._add(name)
        else:
            self.left_out[ODD] += 1
        return False

    def _count_files(self, entry: os.DirEntry[str]) -> int:
        if self._at_most is not None or not entry.is_dir(follow_symlinks=False):
            return 1
        return sum(len(files) for _, _, files in os.walk(entry.path))

    def _add(self, name: str) -> None:
        if is_image(name):
            self.names.append(name)
        else:
            self.endings[_ending(name)] += 1

    def _add_linked_files(self) -> None:
        if not self._file_links:
            return
        read = {_identity((self.root / name).stat()): name for name in self.names}
        self.left_out[REPEATED] += len(self.names) - len(read)
        for name in sorted(self._file_links):
            path = self.root / name
            if not path.is_file():
                self.left_out[ODD if path.exists() else BROKEN] += 1
            elif not is_image(name):
                self._add(name)
            else:
                other = read.setdefault(identity := _identity(path.stat()), name)
                self.left_out[REPEATED] += other != name
                if _says_split(name) and not _says_split(other):
                    read[identity] = name
        self.names = list(read.values())

    def describe_left_out(self) -> str:
        """How many files are left out and why, as part of a sentence; empty where there are none."""
        kinds = [(ending or "without an ending", count) for ending, count in _largest_first(self.endings)]
        others = sum(count for _, count in kinds[KINDS_NAMED:])
        counts = [*kinds[:KINDS_NAMED], ("of other kinds", others), *_largest_first(self.left_out)]
        words = [f"{count:,} {reason}" for reason, count in counts if count]
        hint = "; convert or rename those that are images" if self.endings.keys() & {"", *OTHER_PICTURES} else ""
        return ", ".join(words) + hint


def _largest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (pathlib is ten times slower)


def _says_split(name: str) -> bool:
    return any(names_split(part) for part in name.split("/")[:-1])


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def find_images(root: Path, at_most: int | None = None) -> list[str]:
    """Paths of images relative to `root`, with forward slashes, sorted; see `FoundImages`."""
    return FoundImages(root, at_most).names
