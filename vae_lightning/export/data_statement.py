"""What a model card says about the images that the model was trained on, and what follows for its use."""

from collections.abc import Mapping
from typing import Any

from vae_lightning.data.sources.celeba import CELEBA_PAGE
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.system.names import as_markdown

NUM_SHOWN = 8  # attributes at each end of the list of frequencies


def data_front_matter(source: str) -> dict[str, Any]:
    """Licence and data as hubs read them."""
    if source == "celeba":
        named = {"license_name": "celeba-non-commercial-research", "license_link": CELEBA_PAGE}
        return {"license": "other", **named, "datasets": ["CelebA"]}
    return {"license": "unknown"}


def data_section(data: Mapping[str, Any], frequencies: Mapping[str, float]) -> str:
    """
    Args:
        data: the record of what the run was trained on.
        frequencies: attribute -> share of the training images that have it; empty where nobody has counted.
    """
    source = data_sources()[data["source"]]
    crop = "the largest centred square" if data["crop"] is None else f"crop {data['crop']}"
    facts = (
        f"{source.title}: {data['train_count']:,} images for training, {data['val_count']:,} for "
        f"validation, {data['test_count']:,} for testing ({data['partition']}); {crop}, "
        f"{data['image_size']}×{data['image_size']} pixels, {data['color']}. "
        f"Fingerprint of the files: {data['fingerprint']}."
    )
    lines = [as_markdown(facts), source.about]
    if data["source"] == "celeba":
        lines.append(f"**Licence.** {source.licence}")
    if frequencies:
        lines.append(_frequencies_in_words(frequencies))
    return "\n\n".join(lines)


def _frequencies_in_words(frequencies: Mapping[str, float]) -> str:
    ordered = sorted(frequencies.items(), key=lambda item: item[1], reverse=True)
    often, seldom = ordered[:NUM_SHOWN], ordered[NUM_SHOWN:][-NUM_SHOWN:]
    words = "How many of the training images have an attribute: most have " + _listed(often)
    return words + (f"; few have {_listed(seldom[::-1])}." if seldom else ".")


def _listed(shares: list[tuple[str, float]]) -> str:
    return ", ".join(f"{as_markdown(name)} ({share:.1%})" for name, share in shares)
