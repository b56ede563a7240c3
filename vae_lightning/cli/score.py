"""`vae edit score`: compares all ways to add one attribute, by a network that guided none of them."""

from typing import Annotated, Any

import typer

from vae_lightning.cli.arguments import Device, RunPath, Seed, Which, ends_with_one_line, split_by_comma
from vae_lightning.cli.edit import Finer, Folder, Levels, Remove, Split, numbers
from vae_lightning.system.terminal import command

# of the table in the terminal; the file has all
COLUMNS = ("method", "largest_change", "success", "leakage", "identity_distance", "gaussian_prior_nats")


@ends_with_one_line
def score(
    run: RunPath,
    attribute: Annotated[str, typer.Argument(help="As the data call it: Smiling, Eyeglasses, …")],
    judge: Annotated[str, typer.Option(help="Run of experiment=attribute_classifier or factor_regressor.")] = "",
    classifier: Annotated[str, typer.Option(help="Another one, to score guidance as well.")] = "",
    factor: Annotated[str, typer.Option(help="What a factor_regressor shall judge by: smile, glasses, …")] = "",
    orthogonal_to: Annotated[str, typer.Option(help="Attributes that shall stay, by comma.")] = "",
    strengths: Annotated[str, typer.Option(help="By comma; 1 = one standard deviation of the latents.")] = (
        "0.5,1,1.5,2,3"
    ),
    remove: Remove = False,
    images: Annotated[int, typer.Option(min=20, help="Test images at most.")] = 300,
    levels: Levels = "",
    finer: Finer = "keep",
    split: Split = "test",
    seed: Seed = 0,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Score every method: target change against leakage, identity, distance from the prior and sharpness."""
    from vae_lightning.cli.workplace import check_judge, finish, made_by, opened
    from vae_lightning.editing.judging.judge import Judge
    from vae_lightning.editing.judging.methods import methods_for
    from vae_lightning.editing.judging.trade_off import compare_methods

    if not judge:
        raise ValueError(
            f"--judge RUN is needed: {command('python train.py experiment=attribute_classifier seed=1')} trains one"
        )
    check_judge(judge, classifier)
    steps, others = numbers("strengths", strengths), split_by_comma(orthogonal_to)
    with opened(run, checkpoint, device, split=split, seed=seed, out=out, levels=levels or None) as workplace:
        subject = workplace.subject
        reader = workplace.recognizer(judge)
        if reader.target == "factors" and not factor:
            raise ValueError(
                f"--factor: {judge} predicts factors; name the one for {attribute}, of {', '.join(reader.names)}"
            )
        guide = workplace.recognizer(classifier) if classifier else None
        methods = methods_for(subject, workplace.run.direction_file, attribute, not remove, others, guide)
        target = factor or attribute
        outcome = compare_methods(Judge(reader, subject), subject, target, not remove, methods, steps, images, finer)
    networks = made_by(judge=judge, classifier=classifier)
    settings: dict[str, Any] = {"edit": "score", "attribute": attribute, **networks}
    settings |= {"strengths": steps, "remove": remove, "images": images, "orthogonal_to": others}
    settings |= {"factor": factor, "finer": finer}
    name = f"score_{target}{'_removed' if remove else ''}"
    finish(workplace, outcome, name, out, settings, show={"at_equal_change": COLUMNS})
