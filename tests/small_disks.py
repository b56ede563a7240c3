"""File systems of their own, to be filled up or made read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs at `folder`."""

    def __init__(self, folder: Path, prefix: list[str]) -> None:
        self.folder = folder
        self._prefix = prefix

    def remount(self, options: str) -> None:
        subprocess.run([*self._prefix, "mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self) -> Path:
        """Takes all the room that is left; deleted, the file gives it back."""
        file = self.folder / "filling"
        with file.open("wb", buffering=0) as opened:
            try:
                while True:
                    opened.write(bytes(4096))
            except OSError:
                return file

    def hidden_files(self) -> list[str]:
        """Where something half written would lie; locks stay, and hydra's folder."""
        names = [path.name for path in self.folder.rglob(".*")]
        return [name for name in names if not name.endswith(".lock") and name != ".hydra"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Skips the test where nobody may mount."""
    folder.mkdir(parents=True)
    for prefix in ([], ["sudo", "-n"]):
        options = f"size={size},uid={os.getuid()},gid={os.getgid()}"
        command = [*prefix, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            mounted = False
        if mounted:
            try:
                yield SmallDisk(folder, prefix)
            finally:
                subprocess.run([*prefix, "umount", "--lazy", str(folder)], check=True)
            return
    pytest.skip("a small file system cannot be mounted here")
