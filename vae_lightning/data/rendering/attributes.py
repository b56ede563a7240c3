"""CelebA's 40 attributes as they follow from the factors of a rendered face."""

from collections.abc import Callable

from vae_lightning.data.rendering.factors import FaceFactors

ATTRIBUTE_NAMES = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]

Rule = tuple[str, Callable[[FaceFactors], bool]]


def _shows_hair(f: FaceFactors) -> bool:
    return f.bald <= 0.75


def _has_hair_colour(f: FaceFactors) -> bool:
    """Grey hair and bald heads have none of the three colours."""
    return _shows_hair(f) and f.hair_greyness <= 0.5


# Each attribute that is drawn: the rule in words, and the rule. Words and rule say the same; a test compares them.
RULES: dict[str, Rule] = {
    "5_o_Clock_Shadow": ("0.12 < beard <= 0.4", lambda f: 0.12 < f.beard <= 0.4),
    "Arched_Eyebrows": ("brow_arch > 0.6", lambda f: f.brow_arch > 0.6),
    "Bags_Under_Eyes": ("age > 0.6", lambda f: f.age > 0.6),
    "Bald": ("bald > 0.75", lambda f: f.bald > 0.75),
    "Bangs": (
        "fringe > 0.45 and bald <= 0.3 and hat <= 0.85",
        lambda f: f.fringe > 0.45 and f.bald <= 0.3 and f.hat <= 0.85,
    ),
    "Big_Lips": ("lip_fullness > 0.65", lambda f: f.lip_fullness > 0.65),
    "Big_Nose": ("nose_size > 0.65", lambda f: f.nose_size > 0.65),
    "Black_Hair": (
        "hair_lightness <= 0.2 and hair_greyness <= 0.5 and bald <= 0.75",
        lambda f: _has_hair_colour(f) and f.hair_lightness <= 0.2,
    ),
    "Blond_Hair": (
        "hair_lightness > 0.6 and hair_warmth <= 0.6 and hair_greyness <= 0.5 and bald <= 0.75",
        lambda f: _has_hair_colour(f) and f.hair_lightness > 0.6 and f.hair_warmth <= 0.6,
    ),
    "Brown_Hair": (
        "0.2 < hair_lightness <= 0.6 and hair_warmth <= 0.6 and hair_greyness <= 0.5 and bald <= 0.75",
        lambda f: _has_hair_colour(f) and 0.2 < f.hair_lightness <= 0.6 and f.hair_warmth <= 0.6,
    ),
    "Bushy_Eyebrows": ("brow_thickness > 0.65", lambda f: f.brow_thickness > 0.65),
    "Chubby": ("face_width > 46.5", lambda f: f.face_width > 46.5),
    "Eyeglasses": ("glasses > 0.2", lambda f: f.glasses > 0.2),
    "Goatee": ("0.4 < beard <= 0.7", lambda f: 0.4 < f.beard <= 0.7),
    "Gray_Hair": ("hair_greyness > 0.5 and bald <= 0.75", lambda f: _shows_hair(f) and f.hair_greyness > 0.5),
    "Male": ("masculinity > 0.5", lambda f: f.masculinity > 0.5),
    "Mouth_Slightly_Open": ("mouth_open > 0.1", lambda f: f.mouth_open > 0.1),
    "Mustache": ("beard > 0.4", lambda f: f.beard > 0.4),
    "Narrow_Eyes": ("eye_openness <= 0.45", lambda f: f.eye_openness <= 0.45),
    "No_Beard": ("beard <= 0.12", lambda f: f.beard <= 0.12),
    "Oval_Face": (
        "face_height > 1.6 * face_width and masculinity <= 0.5",
        lambda f: f.face_height > 1.6 * f.face_width and f.masculinity <= 0.5,
    ),
    "Pale_Skin": ("skin_tone <= 0.12", lambda f: f.skin_tone <= 0.12),
    "Receding_Hairline": ("0.3 < bald <= 0.75", lambda f: 0.3 < f.bald <= 0.75),
    "Sideburns": ("beard > 0.7", lambda f: f.beard > 0.7),
    "Smiling": ("smile > 0.4", lambda f: f.smile > 0.4),
    "Straight_Hair": ("hair_wave <= 0.3 and bald <= 0.75", lambda f: _shows_hair(f) and f.hair_wave <= 0.3),
    "Wavy_Hair": ("hair_wave > 0.6 and bald <= 0.75", lambda f: _shows_hair(f) and f.hair_wave > 0.6),
    "Wearing_Hat": ("hat > 0.45", lambda f: f.hat > 0.45),
    "Wearing_Lipstick": ("lip_colour > 0.45", lambda f: f.lip_colour > 0.45),
    "Young": ("age <= 0.55", lambda f: f.age <= 0.55),
}


def face_attributes(factors: FaceFactors) -> list[bool]:
    """In the order of ATTRIBUTE_NAMES; what is not drawn is False."""
    return [name in RULES and RULES[name][1](factors) for name in ATTRIBUTE_NAMES]


def describe_attributes() -> str:
    """The text of the data set's ATTRIBUTES.md."""
    not_drawn = ", ".join(name for name in ATTRIBUTE_NAMES if name not in RULES)
    lines = [
        "# Attributes of the rendered faces",
        "",
        "The columns of `list_attr_celeba.txt` follow from the factors in `factors.csv` by these rules.",
        f"Not drawn, and therefore -1 in every picture: {not_drawn}.",
        "",
        "| attribute | 1 where |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {name} | {words} |" for name, (words, _) in RULES.items())]) + "\n"
