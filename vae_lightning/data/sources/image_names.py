"""Which files are images, and which of them a list means."""

from collections.abc import Collection, Sequence

from vae_lightning.data.sources.source import DataError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
ALLOW_MISSING = "data.allow_missing=true uses those that are there"


def match_names(listed: Sequence[str], present: Collection[str]) -> list[str | None]:
    """Under which name each listed image is there: its own, else one that differs by the extension and its case only.

    Raises: DataError where two files could be meant.
    """
    if all(name in present for name in listed):
        return list(listed)
    by_stem: dict[str, list[str]] = {}
    for name in present:
        if is_image(name):
            by_stem.setdefault(_stem(name), []).append(name)
    return [name if name in present else _only(name, by_stem.get(_stem(name), [])) for name in listed]


def _stem(name: str) -> str:
    return (name.rpartition(".")[0] or name).lower()  # pathlib takes three seconds for CelebA's names


def _only(listed: str, candidates: list[str]) -> str | None:
    if len(candidates) > 1:
        raise DataError(f"{' and '.join(sorted(candidates))} could both be the listed {listed}: remove all but one.")
    return candidates[0] if candidates else None


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")
