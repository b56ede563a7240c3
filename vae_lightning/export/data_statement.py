"""What a model card says about the images that the model was trained on, and what follows for its use."""

from collections.abc import Mapping
from typing import Any

from vae_lightning.data.sources.celeba import CELEBA_PAGE
from vae_lightning.runs.data_record import DATA_NAMES
from vae_lightning.system.names import as_markdown

CELEBA_LICENCE = (
    f"CelebA is for non-commercial research only, and so is this model: no commercial use of either, see {CELEBA_PAGE}."
)
NUM_SHOWN = 8  # attributes at each end of the list of frequencies

STATEMENTS = {
    "celeba": (
        "Photographs of celebrities, found on the web by the makers of CelebA (Liu et al. 2015, arXiv:1411.7766), "
        "aligned by eyes and mouth. They are real people, who were not asked. Celebrities are no sample of mankind: "
        "most are young, made up, photographed for the public and of light skin, and who is rare in the data is drawn "
        "worse. The attributes were judged by others, without a common rule, as yes or no: `Attractive`, `Young`, "
        "`Male` say what somebody thought of a picture, and nothing of the person."
    ),
    "faces": (
        "Faces that vae-lightning draws itself, from known factors. Nobody's picture, and no licence of anybody's on "
        "them. What holds of these drawings need not hold of photographs."
    ),
    "folder": (
        "Images of the folder that its maker named; this card does not know what they show, whose they are, or what "
        "may be done with them. Whoever publishes the model has to say so here."
    ),
    "noise": "Noise, to measure speed and memory. The model has learned nothing.",
}
USES = {
    "celeba": "non-commercial research on representations and on face models, and teaching",
    "faces": "research on representations, tests, demonstrations and teaching",
    "folder": "what the licence of the images allows",
    "noise": "measurements of speed and memory",
}


def licence_reminder(source: str) -> str:
    """One sentence before anything is uploaded; empty where the images are nobody's."""
    return {
        "celeba": CELEBA_LICENCE,
        "folder": "Check that the licence of your images allows to publish this model.",
    }.get(source, "")


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
    crop = "the largest centred square" if data["crop"] is None else f"crop {data['crop']}"
    facts = (
        f"{DATA_NAMES[data['source']]}: {data['train_count']:,} images for training, {data['val_count']:,} for "
        f"validation, {data['test_count']:,} for testing ({data['partition']}); {crop}, "
        f"{data['image_size']}×{data['image_size']} pixels, {data['color']}. "
        f"Fingerprint of the files: {data['fingerprint']}."
    )
    lines = [as_markdown(facts), STATEMENTS[data["source"]]]
    if data["source"] == "celeba":
        lines.append(f"**Licence.** {CELEBA_LICENCE}")
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
