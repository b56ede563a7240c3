"""The short answer in sentences: which run is best, what beta changes, which runs are missing."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product

from vae_lightning.report.beta_choice import MOST_LINES, sentences_about_beta
from vae_lightning.report.front import find_front
from vae_lightning.report.sweep import Sweep, origins, short_number
from vae_lightning.report.table import Estimate, Setting, Table, series

NAMES_SHOWN = 6
MOST_STEPS = 6  # of beta in a sentence
SCORES = {"auc": "AUC", "r_squared": "R²"}


def summarise(sweep: Sweep, table: Table) -> list[str]:
    """Sentences, the most important first; plain text."""
    collapsed = _collapsed(table)
    of_vaes = [collapsed] if collapsed else [*sentences_about_beta(table), _best_vae(table)]
    of_others = [_best_recognizer(table, reads) for reads in table.kinds if reads]
    front = find_front(sweep)
    return [
        *(front.sentences(sweep) if front else []),
        *(of_vaes if None in table.kinds else []),
        *of_others,
        *([] if collapsed else _duels(table)),
        *_effect_of_beta(table),
        *_what_compares(table),
        *_missing(sweep),
        *origins(sweep.jobs),
    ]


def _collapsed(table: Table) -> str | None:
    """Says that no VAE has learnt anything in its latents; None where one has, or none was measured."""
    vaes = [entry for entry in table.ranked(None) if any(job.has_prior for job in entry.jobs)]
    if not vaes or not all(job.is_collapsed for entry in vaes for job in entry.jobs if job.metrics):
        return None
    return (
        f"Every posterior has collapsed: in all {len(vaes)} measured settings no latent is active, so every face gets "
        "the same latents and there is no best one. Lower β, warm it up (beta_schedule=warmup) or train longer."
    )


def _best_vae(table: Table) -> str:
    best = table.best(None)
    if best is None:
        return "No run has finished with an ELBO yet, so there is no best one."
    where = name(best) or "the only setting"
    if table.ranked_by == "bits_per_dim":
        return f"Best: {where} with {spread(best.values['bits_per_dim'], 4)} bits per dimension ({table.split} split)."
    value = spread(best.values["elbo_nats"], 5)
    best_elbo = f"Best ELBO: {value} nats per image at β = 1 ({table.split} split; higher is better), with {where}."
    if "beta" not in table.varied:
        return best_elbo
    return f"{best_elbo} Runs trained near β = 1 are trained for this number: it does not say which β suits a use."


def _best_recognizer(table: Table, reads: str) -> str:
    best = table.best(reads)
    if best is None:
        return f"No {called(reads)} has finished with a loss yet, so there is no best one."
    loss = spread(best.values["loss"], 4)
    scores = [
        f"; its mean {word} is {spread(best.values[key], 3)}" for key, word in SCORES.items() if key in best.values
    ]
    return (
        f"Best loss over {reads}: {loss} nats per image ({table.split} split; lower is better), "
        f"with {name(best) or 'the only setting'}{''.join(scores)}."
    )


def _duels(table: Table) -> list[str]:
    """For each key, which value wins among settings of one kind that differ in nothing else."""
    sentences = []
    for key, reads in product(table.varied, table.kinds):
        contests: dict[tuple[str, ...], list[Setting]] = {}
        for entry in table.ranked(reads):
            others = tuple(value for other, value in entry.overrides.items() if other != key)
            contests.setdefault(others, []).append(entry)
        fought = [entries for entries in contests.values() if len(entries) > 1]
        if len(fought) < 2:  # one contest is what the table shows
            continue
        wins = Counter(entries[0].overrides[key] for entries in fought)
        (best, count), *rest = wins.most_common()
        also = "".join(f", {value or 'not set'} in {times}" for value, times in rest)
        metric = f"loss over {reads}" if reads else table.ranked_by
        sentences.append(
            f"{key}: {best or 'not set'} has the best {metric} in {count} of {len(fought)} comparisons "
            f"with all else equal{also}."
        )
    return sentences


def _effect_of_beta(table: Table) -> list[str]:
    sentences: list[str] = []
    for line, settings in series(table).items():
        if len(sentences) == MOST_LINES:
            break
        points = [entry for entry in settings if entry.is_measured and entry.mean("kl_nats") is not None]
        betas = [entry.jobs[0].beta for entry in points]
        if len(set(betas)) < 2:
            continue
        if len(points) > MOST_STEPS:
            continue
        steps = " → ".join(f"{beta:.4g}" for beta in betas)
        effects = " and ".join(_course(points, key, word) for key, word in (("kl_nats", "KL"), ("mse", "mse")))
        sentences.append(f"{line}: over β = {steps}, {effects}.")
    return sentences


def _course(points: Sequence[Setting], key: str, word: str) -> str:
    values = [entry.mean(key) for entry in points]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{word} is not known"
    texts = [f"{value:.3g}" for value in known]
    steps = " → ".join(texts)
    moves = {float(later) > float(earlier) for earlier, later in pairwise(texts) if earlier != later}
    if not moves:
        return f"{word} stays at {texts[0]}{' nats' if key.endswith('_nats') else ''}"
    verb = "goes up and down" if len(moves) > 1 else "rises" if moves == {True} else "falls"
    return f"{word} {verb} ({steps}{' nats' if key.endswith('_nats') else ''})"


def _what_compares(table: Table) -> list[str]:
    if table.ranked_by == "elbo_nats":
        return []
    return [
        "The runs differ in their pixel term or in their images, so their ELBOs in nats do not compare: they are "
        "ranked by bits_per_dim, which is of the 256 levels of pixels. Between images of different size or colour it "
        "is only a hint: those are different tasks."
    ]


def _missing(sweep: Sweep) -> list[str]:
    unfinished = [job for job in sweep.jobs if job.status != "done"]
    if not unfinished:
        return []
    named = [f"{sweep.label(job, ', ')} ({job.status})" for job in unfinished[:NAMES_SHOWN]]
    more = f" and {len(unfinished) - NAMES_SHOWN} more" if len(unfinished) > NAMES_SHOWN else ""
    done = len(sweep.jobs) - len(unfinished)
    return [f"{done} of {len(sweep.jobs)} jobs are done. Missing: {'; '.join(named)}{more}."]


def called(reads: str) -> str:
    """What a network is called that predicts this from faces."""
    return {"attributes": "attribute classifier", "factors": "factor regressor"}.get(reads, f"network for {reads}")


def name(setting: Setting) -> str:
    return ", ".join(f"{key}={short_number(value)}" for key, value in setting.overrides.items() if value)


def spread(value: Estimate, digits: int) -> str:
    """`−94.4 ± 0.8`: with a standard error as many decimals as it has, else so many significant digits."""
    if not math.isfinite(value.mean):
        return "no number"
    error = value.standard_error
    is_whole = not error and value.mean == round(value.mean)
    decimals = _decimals(error, 2) if error else 0 if is_whole else _decimals(value.mean, digits)
    mean = f"{value.mean:.{decimals}f}".replace("-", "−")
    return mean if error is None else f"{mean} ± {error:.{decimals}f}"


def _decimals(value: float, digits: int) -> int:
    """Decimals that show `value` with so many significant digits, none for large ones."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
