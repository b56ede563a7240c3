"""`vae prepare`: checks, downloads or renders data and decodes them for training."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_lightning.cli.arguments import ends_with_one_line, split_by_comma
from vae_lightning.system.terminal import command

if TYPE_CHECKING:
    from vae_lightning.data.decoded.preprocessing import Preprocessing

# these and the defaults of the options are those of training
DATA_DIR = Path("data")
FACES_COUNT = 10_000


@ends_with_one_line
def prepare(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="CelebA's. Default: CELEBA_ROOT, then data/celeba.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Get CelebA into FOLDER first (1.4 GB).")] = False,
    faces: Annotated[bool, typer.Option("--faces", help="Draw the built-in faces instead: no download.")] = False,
    count: Annotated[int | None, typer.Option(min=20, help="With --faces: how many. Default: 10000.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With --faces: another seed, other faces.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Decode so many of the images for the check. Default: all.")
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Some of the listed images may be missing: use those that are there."),
    ] = False,
    cache: Annotated[bool, typer.Option(help="Decode the images for training, so that it starts at once.")] = True,
    image_size: Annotated[str, typer.Option(help="Of the decoded images; several by comma.")] = "64",
    crop: Annotated[str, typer.Option(help="Side of the centred square, null, or four edges in brackets.")] = "148",
    color: Annotated[str, typer.Option(help="rgb or gray.")] = "rgb",
    data_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Where rendered faces and decoded images go.")
    ] = DATA_DIR,
) -> None:
    """Check CelebA (or --download it, or draw --faces), and decode it for training. Exit code 1: the data are wrong."""
    from vae_lightning.data.sources.source import DataError
    from vae_lightning.system.extras import MissingExtraError

    forms = _forms(image_size, crop, color)
    _refuse_what_does_not_go_together(folder, download or allow_missing, faces, count, seed, sample)
    if not faces:
        root = _root(folder, data_dir, download)
    try:
        if faces:
            _prepare_faces(FACES_COUNT if count is None else count, seed or 0, forms, data_dir, cache)
        else:
            _prepare_celeba(
                root, forms, data_dir, download=download, sample=sample, cache=cache, allow_missing=allow_missing
            )
    except (DataError, MissingExtraError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error


def _forms(image_sizes: str, crop: str, color: str) -> "list[Preprocessing]":
    """Sizes, crop and colour to decode in, read as in training. Raises: ValueError."""
    import yaml

    from vae_lightning.data.decoded.preprocessing import Preprocessing, as_crop

    sizes = split_by_comma(image_sizes)
    if not sizes or not all(size.isdecimal() for size in sizes):
        raise ValueError(f"--image-size {image_sizes}: expected pixels, several by comma, as in 64,128")
    try:
        parsed = yaml.safe_load(crop)
    except yaml.YAMLError:
        parsed = crop
    return [Preprocessing(as_crop(parsed), int(size), color) for size in sizes]


def _refuse_what_does_not_go_together(
    folder: Path | None, of_celeba: bool, faces: bool, count: int | None, seed: int | None, sample: int | None
) -> None:
    if faces and (folder is not None or of_celeba or sample is not None):
        raise ValueError("--faces draws its own images: leave out FOLDER, --download, --allow-missing and --sample.")
    if not faces and (count is not None or seed is not None):
        raise ValueError("--count and --seed are for --faces; a check of fewer images is --sample.")


def _root(folder: Path | None, data_dir: Path, download: bool) -> Path:
    """The folder that training would take. Raises: ValueError if it is unknown or not a folder."""
    from vae_lightning.data.sources.celeba import celeba_root
    from vae_lightning.data.sources.celeba_files import explain_place
    from vae_lightning.data.sources.source import SourceSettings

    root = celeba_root(SourceSettings(folder, data_dir))
    if root is None:
        root = data_dir / "celeba"
        if not download:
            raise ValueError(
                f"Which folder? {command('vae prepare /path/to/celeba')}, or set CELEBA_ROOT. Without CelebA:\n"
                f"  {command('vae prepare --download')} gets it into {root}\n"
                f"  {command('vae prepare --faces')} draws faces"
            )
    problem = None if download and not root.exists() else explain_place(root)
    if problem is not None:
        raise ValueError(problem)
    return root


def _prepare_celeba(
    root: Path,
    forms: "Sequence[Preprocessing]",
    data_dir: Path,
    *,
    download: bool,
    sample: int | None,
    cache: bool,
    allow_missing: bool,
) -> None:
    from vae_lightning.data.preparation.check_report import print_check, write_problems
    from vae_lightning.data.preparation.checking import check_celeba
    from vae_lightning.data.preparation.download import download_celeba
    from vae_lightning.system.progress import progress

    if download:
        download_celeba(root, typer.echo)
    with progress() as observer:
        check = check_celeba(root, forms[0].crop, sample, observer.track, allow_missing=allow_missing)
    problems = data_dir / "celeba_problems.txt"
    write_problems(problems, check)
    print_check(check, problems)
    if check.problems:
        raise typer.Exit(1)
    if cache:
        _decode(forms, data_dir, "celeba", str(root), allow_missing=allow_missing)
    allowed = ["data.allow_missing=true"] if allow_missing else []
    _print_commands([*allowed, *_overrides(forms[0], data_dir)], root, data_dir)


def _prepare_faces(count: int, seed: int, forms: "Sequence[Preprocessing]", data_dir: Path, cache: bool) -> None:
    from vae_lightning.data.rendering.dataset import faces_folder_name, render_faces

    root = render_faces(data_dir / faces_folder_name(count, seed), count=count, seed=seed)
    typer.echo(f"{count:,} rendered faces in {root}")
    if cache:
        _decode(forms, data_dir, "faces", faces_count=count, faces_seed=seed)
    overrides = ["data=faces"]
    overrides += [f"data.faces_count={count}"] if count != FACES_COUNT else []
    overrides += [f"data.faces_seed={seed}"] if seed else []
    _print_commands(overrides + _overrides(forms[0], data_dir))


def _decode(
    forms: "Sequence[Preprocessing]",
    data_dir: Path,
    source: str,
    root: str | None = None,
    **settings: Any,
) -> None:
    """Fills the cache with the code that fills it in training, and prints where it is."""
    from vae_lightning.data import SPLITS, FaceDataModule

    for form in forms:
        data = FaceDataModule(
            source,
            root,
            form.crop,
            form.image_size,
            form.color,
            data_dir=str(data_dir),
            **settings,
        )
        data.prepare_data()
        images = [data.split(split).images for split in SPLITS]
        megabytes = sum(each.nbytes for each in images) / 1e6
        typer.echo(
            f"Decoded for training: {sum(map(len, images)):,} images of {form.image_size}x{form.image_size} "
            f"{form.color}, {megabytes:,.0f} MB in {data_dir / 'cache'}"
        )


def _overrides(form: "Preprocessing", data_dir: Path) -> list[str]:
    """Overrides for training, where a value is not the default."""
    crop = "null" if form.crop is None else str(form.crop if isinstance(form.crop, int) else list(form.crop))
    given = {
        "data.image_size": (str(form.image_size), "64"),
        "data.crop": (crop.replace(" ", ""), "148"),
        "data.color": (form.color, "rgb"),
        "data.data_dir": (str(data_dir), str(DATA_DIR)),
    }
    return [f"{key}={value}" for key, (value, default) in given.items() if value != default]


def _print_commands(overrides: list[str], root: Path | None = None, data_dir: Path = DATA_DIR) -> None:
    """How to train on it; CelebA's folder has to be said where train.py would take another."""
    train = ["python", "train.py", *overrides]
    if root is None or root == Path(os.environ.get("CELEBA_ROOT") or data_dir / "celeba").expanduser():
        typer.echo(f"Ready. Train on it:\n  {command(shlex.join(train))}")
        return
    place = str(root.absolute())
    typer.echo(f"Ready. Train on it:\n  {command(shlex.join([*train, f'data.root={place}']))}")
    typer.echo(f"or, for all commands of this shell:\n  export CELEBA_ROOT={shlex.quote(place)}")
    typer.echo(f"  {command(shlex.join(train))}")
