"""The built-in rendered faces: drawn when they are first needed, then read as CelebA is."""

from dataclasses import replace
from functools import partial

from vae_lightning.data.decoded.checksums import read_checksums
from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.source import CheckedStore, DataError, DataSource, ImageSource, SourceSettings


def _read_source(settings: SourceSettings) -> ImageSource:
    # the drawing code is imported only when it is needed
    from vae_lightning.data.rendering.dataset import CHECKSUMS, faces_folder_name, read_factors, render_faces

    count, seed = settings.faces_count, settings.faces_seed
    try:
        root = render_faces(settings.data_dir / faces_folder_name(count, seed), count=count, seed=seed)
    except ValueError as error:
        raise DataError(str(error)) from error
    images = CheckedStore(root / "img_align_celeba", read_checksums(root / CHECKSUMS))
    return replace(read_celeba(root), kind="faces", images=images, read_factors=partial(read_factors, root))


SOURCE = DataSource(
    title="rendered faces",
    read=_read_source,
    has_root=False,
    about="Faces that vae-lightning draws itself, from known factors. Nobody's picture, and no licence of anybody's on "
    "them. What holds of these drawings need not hold of photographs.",
    uses="research on representations, tests, demonstrations and teaching",
    note="A program drew them; they are no photographs.",
    licence="",
)
