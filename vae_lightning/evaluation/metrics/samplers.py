"""Priors fitted to the latents after training: the KL term of an ELBO with them, and how their samples look.

Sources: Ghosh et al. 2020, section 4, arXiv:1903.12436; Dai & Wipf 2019, section 3, arXiv:1903.05789.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.latents.priors import PRIORS, Prior, PriorError, prior_class
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Direction, Result, Value

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject

COLUMNS = 8
LABELS = {"normal": "N(0, I)", "gaussian": "Gaussian", "gmm": "mixture", "flow": "flow"}
NO_SAMPLER = "a plain autoencoder is not trained towards N(0, I), so its codes need a prior that is fitted to them"


@dataclass(frozen=True)
class Samplers(Metric):
    """One value or two for each of `priors`; their FID is measured with that of all samples, in `fidelity`."""

    title: ClassVar[str] = "Samplers after training"
    place: ClassVar[int] = 80
    is_faster_in_one_thread: ClassVar[bool] = True

    priors: tuple[str, ...] = tuple(PRIORS)

    def __post_init__(self) -> None:
        if not self.priors or len(set(self.priors)) < len(self.priors):
            raise EvaluationError(f"priors={self.priors}: expected some of {', '.join(PRIORS)}, each once")
        for name in self.priors:
            try:
                prior_class(name)
            except PriorError as error:
                raise EvaluationError(f"priors={self.priors}: {error}") from error

    def measure(self, subject: "Subject") -> Result:
        noise = subject.noise(len(subject.rows(subject.split)), "samplers")
        has_prior = subject.model.has_prior
        fitted, problems = fitted_priors(subject, self.priors)
        densities = fitted | ({"normal": subject.prior("normal")} if has_prior else {})
        parts: dict[str, list[Tensor]] = defaultdict(list)
        for _, draw in subject.draws(noise):
            parts["ratio"].append(draw.log_ratio.double())
            for name, prior in densities.items():
                parts[name].append(prior.log_prob(draw.latents))
        found = {name: torch.cat(each).numpy() for name, each in parts.items()}
        log_probs = {name: found[name] for name in fitted}
        if has_prior:
            values, remarks = _rates(found["ratio"] + found["normal"], log_probs, found["normal"], subject)
            values += [Value.missing(f"{name}_rate_nats", problem) for name, problem in problems.items()]
        else:
            values, remarks = _cross_entropies(log_probs), []
            values += [Value.missing(f"{name}_cross_entropy_nats", problem) for name, problem in problems.items()]
        pictures = {"samplers": picture_of(subject, fitted)} if fitted else {}
        return Result(values, self._protocol(subject, len(noise), fitted), remarks, pictures=pictures)

    def _protocol(self, subject: "Subject", num_images: int, fitted: dict[str, Prior]) -> dict[str, Any]:
        return {
            "split": subject.split,
            "images": num_images,
            "samples_per_image": 1,
            "fitted_to": f"one sample of q(z|x){subject.which_latents} for each training image used "
            "(an autoencoder: its code)" + ("" if subject.model.is_flat else "; finer latents stay N(0, I)"),
            "seed": subject.seed,
            "priors": {name: prior.settings() for name, prior in fitted.items()},
            "fid": "of these samples: in the metric fidelity",
        }


def fitted_priors(subject: "Subject", names: Sequence[str]) -> tuple[dict[str, Prior], dict[str, str]]:
    """The priors by name, and the reasons why others could not be fitted."""
    fitted, problems = {}, {}
    for name in names:
        if name == "normal" and not subject.model.has_prior:
            problems[name] = NO_SAMPLER
            continue
        try:
            fitted[name] = subject.prior(name)
        except PriorError as error:
            problems[name] = str(error)
    return fitted, problems


def _rates(
    log_posterior: Float[np.ndarray, " images"],
    log_probs: dict[str, Float[np.ndarray, " images"]],
    log_normal: Float[np.ndarray, " images"],
    subject: "Subject",
) -> tuple[list[Value], list[str]]:
    """E[log q(z|x) - log p(z)] for each prior and its gain over N(0, I), with a verdict on the best."""
    rate_note = "KL(q(z|x) || prior) by one sample for each image: the KL term of an ELBO with this prior"
    gain_note = "how much higher the ELBO of these images is with this prior than with N(0, I), nothing else changed"
    rates = {name: log_posterior - log_prob for name, log_prob in log_probs.items()}
    gains = {name: log_prob - log_normal for name, log_prob in log_probs.items() if name != "normal"}
    values = [_mean(f"{name}_rate_nats", rate, rate_note, "lower") for name, rate in rates.items()]
    values += [_mean(f"{name}_elbo_gain_nats", gain, gain_note, "higher") for name, gain in gains.items()]
    return values, [_verdict(gains, subject.which_latents)] if gains else []


def _mean(name: str, per_image: Float[np.ndarray, " images"], note: str, better: Direction) -> Value:
    return Value(name, float(per_image.mean()), note, bootstrap_interval(per_image), better)


def _verdict(gains: dict[str, Float[np.ndarray, " images"]], which_latents: str) -> str:
    best = max(gains, key=lambda name: gains[name].mean())
    low, high = bootstrap_interval(gains[best])
    figures = f"{gains[best].mean():+.2f} nats of ELBO (95 %: {low:+.2f} to {high:+.2f})"
    if low <= 0:
        said, how = f"No prior fitted after training{which_latents} is surely better than N(0, I)", "the best"
    else:
        said, how = f"The latents{which_latents} do not fill N(0, I) as the prior has it", "fitted after training"
    return f"{said}: {LABELS[best]}, {how}, {figures}."


def _cross_entropies(log_probs: dict[str, Float[np.ndarray, " images"]]) -> list[Value]:
    note = "-log prior(code), the mean over images; compare priors of one run only: it depends on the codes' scale"
    return [_mean(f"{name}_cross_entropy_nats", -log_prob, note, "") for name, log_prob in log_probs.items()]


def picture_of(subject: "Subject", priors: dict[str, Prior]) -> UInt8[np.ndarray, "height width 3"]:
    """A row of samples for each prior, all from the same noise seed."""
    seed = subject.seed_of("samples of priors")
    latents = [prior.sample(COLUMNS, torch.Generator().manual_seed(seed)) for prior in priors.values()]
    images = subject.decode_uint8(torch.cat(latents)).cpu().unflatten(0, (len(priors), COLUMNS))
    labels = [LABELS[name] for name in priors]
    return labelled_grid(images, labels, title="Samples of priors fitted to the latents after training")
