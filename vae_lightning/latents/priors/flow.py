"""A normalising flow fitted to the latents after training: the second stage of a two-stage VAE, with a density.

Sources: Dinh et al. 2017, "Density estimation using Real NVP", arXiv:1605.08803; Dai & Wipf 2019, section 3,
arXiv:1903.05789, for fitting to the latents what a decoder then reads.
"""

import copy
import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils import skip_init

from vae_lightning.latents.priors.base import NamedPrior, PriorError
from vae_lightning.latents.priors.gaussian import FittedGaussian, draw_noise, standard_normal_log_prob
from vae_lightning.system.progress import Track, untracked

NUM_LAYERS = 8
HIDDEN = 64
LARGEST_LOG_SCALE = 1.5  # of one layer
HELD_OUT_SHARE = 0.1
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
MOST_STEPS = 1_000
STEPS_BETWEEN_CHECKS = 25
PATIENCE = 10  # checks without a better held-out density
WARM_UP_STEPS = 100
# Times the root of latents per image: 2.7 for 32 latents of 8,000 faces, where less gains 0.1 nats more; 5.3 for 32
# latents of 2,000 or 128 of 8,000, where 3/4 of it gains half or nothing.
WEIGHT_DECAY = 40.0


class Coupling(nn.Module):
    """y_b = x_b exp(s(x_a)) + t(x_a), y_a = x_a, where `order` puts the latents of a before those of b.

    s is bounded by LARGEST_LOG_SCALE through a tanh, so that no latent far out is blown up. A new layer only reorders.
    Source: Dinh et al. 2017, section 3.2, equations 4 to 8, arXiv:1605.08803.
    """

    order: Int64[Tensor, " latent"]

    def __init__(self, order: Int64[Tensor, " latent"], hidden: int) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.kept = len(order) // 2
        self.network = nn.Sequential(
            skip_init(nn.Linear, self.kept, hidden),  # `initialise` does it, from a generator
            nn.SiLU(),
            skip_init(nn.Linear, hidden, hidden),
            nn.SiLU(),
            skip_init(nn.Linear, hidden, 2 * (len(order) - self.kept)),
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Random weights, but zeros in the last layer: s = t = 0."""
        linears = [module for module in self.network if isinstance(module, nn.Linear)]
        for linear in linears:
            linear.weight.normal_(0, 1 / math.sqrt(linear.in_features), generator=generator)
            linear.bias.zero_()
        linears[-1].weight.zero_()

    def _log_scale_and_shift(
        self, kept: Float[Tensor, "samples kept"]
    ) -> tuple[Float[Tensor, "samples moved"], Float[Tensor, "samples moved"]]:
        raw, shift = self.network(kept).chunk(2, dim=1)
        return LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE), shift

    def forward(
        self, latents: Float[Tensor, "samples latent"]
    ) -> tuple[Float[Tensor, "samples latent"], Float[Tensor, " samples"]]:
        """y and log |det dy/dx|."""
        ordered = latents[:, self.order]
        kept, moved = ordered[:, : self.kept], ordered[:, self.kept :]
        log_scale, shift = self._log_scale_and_shift(kept)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1), log_scale.sum(1)

    def inverse(self, outputs: Float[Tensor, "samples latent"]) -> Float[Tensor, "samples latent"]:
        kept, moved = outputs[:, : self.kept], outputs[:, self.kept :]
        log_scale, shift = self._log_scale_and_shift(kept)
        ordered = torch.cat([kept, (moved - shift) * torch.exp(-log_scale)], dim=1)
        return ordered[:, self.order.argsort()]


class Couplings(nn.Module):
    """Coupling layers in a row: white latents -> noise, and back."""

    def __init__(self, orders: Int64[Tensor, "layers latent"], hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(order, hidden) for order in orders)

    @classmethod
    def initial(cls, latent_dim: int, generator: torch.Generator) -> "Couplings":
        """A random order in every other layer; between two, the other half is moved, so that none is left out."""
        orders = []
        for _ in range(NUM_LAYERS // 2):
            orders += [torch.randperm(latent_dim, generator=generator), torch.arange(latent_dim).roll(latent_dim // 2)]
        couplings = cls(torch.stack(orders), HIDDEN)
        for layer in couplings.layers:
            assert isinstance(layer, Coupling)
            layer.initialise(generator)
        return couplings

    def forward(
        self, latents: Float[Tensor, "samples latent"]
    ) -> tuple[Float[Tensor, "samples latent"], Float[Tensor, " samples"]]:
        """The noise and log |det d noise / d latents|."""
        log_det = latents.new_zeros(len(latents))
        for layer in self.layers:
            latents, layer_log_det = layer(latents)
            log_det = log_det + layer_log_det
        return latents, log_det

    def inverse(self, noise: Float[Tensor, "samples latent"]) -> Float[Tensor, "samples latent"]:
        for layer in reversed(self.layers):
            assert isinstance(layer, Coupling)
            noise = layer.inverse(noise)
        return noise

    def nll(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, ""]:
        """Mean negative log-density in nats."""
        noise, log_det = self(latents)
        return 0.5 * noise.square().sum(1).mean() - log_det.mean() + 0.5 * noise.shape[1] * math.log(2 * math.pi)


class Flow(NamedPrior):
    """Latents -> white latents (`whitening`) -> noise (`couplings`): before any step, the fitted Gaussian itself."""

    name: ClassVar[str] = "flow"
    fewest_latents: ClassVar[int] = 20  # 2 of them held out

    def __init__(self, whitening: FittedGaussian, couplings: Couplings, fit_settings: dict[str, Any]) -> None:
        super().__init__(whitening.latent_dim)
        self.whitening = whitening
        self.couplings = couplings.double().eval().requires_grad_(False)
        self._fit_settings = fit_settings

    @classmethod
    def fit(cls, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> "Flow":
        """By maximum likelihood of 9 of 10 latents; the step that is best on the others is kept, if any beats none.

        Raises:
            PriorError: there is 1 latent only, so that no other can move it; or all latents are the same.
        """
        if latents.shape[1] < 2:
            raise PriorError("a flow needs 2 latents or more, and the model has 1; take the prior 'gmm'")
        whitening = FittedGaussian.fit(latents)
        generator = torch.Generator().manual_seed(seed)
        couplings = Couplings.initial(whitening.latent_dim, generator)
        white = whitening.whiten(latents).float()[torch.randperm(len(latents), generator=generator)]
        num_held_out = round(HELD_OUT_SHARE * len(white))
        fitted = fit_couplings(couplings, white[num_held_out:], white[:num_held_out], generator, track)
        settings = {"latents": len(white), "held_out": num_held_out, "layers": NUM_LAYERS, "hidden": HIDDEN}
        return cls(whitening, couplings, settings | fitted)

    @torch.no_grad()
    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        noise = temperature * draw_noise(num_samples, self.latent_dim, generator)
        return self.whitening.colour(self.couplings.inverse(noise))

    @torch.no_grad()
    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        noise, log_det = self.couplings(self.whitening.whiten(latents))
        return standard_normal_log_prob(noise) + log_det - self.whitening.log_volume

    def settings(self) -> dict[str, Any]:
        return self._fit_settings

    def tensors(self) -> dict[str, Tensor]:
        whitening = {f"whitening.{name}": tensor for name, tensor in self.whitening.tensors().items()}
        return whitening | {f"couplings.{name}": tensor for name, tensor in self.couplings.state_dict().items()}

    @classmethod
    def from_tensors(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> "Flow":
        whitening = FittedGaussian(tensors["whitening.mean"], tensors["whitening.cholesky"])
        orders = [tensors[f"couplings.layers.{number}.order"] for number in range(settings["layers"])]
        every = torch.arange(whitening.latent_dim)
        if not all(order.dtype == torch.int64 and order.sort().values.equal(every) for order in orders):
            raise PriorError("its couplings do not order its latents")
        couplings = Couplings(torch.stack(orders), settings["hidden"])
        prefix = "couplings."
        weights = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
        couplings.load_state_dict(weights, assign=True)  # a layer that they do not fit has no memory of its own yet
        return cls(whitening, couplings, settings)


def fit_couplings(
    couplings: Couplings,
    fitted: Float[Tensor, "images latent"],
    held_out: Float[Tensor, "others latent"],
    generator: torch.Generator,
    track: Track,
) -> dict[str, Any]:
    """Trains them in place by Adam, and leaves the weights with the best held-out density, the initial ones included.

    Gives the number of steps to those weights, and how many nats they gained on the held-out latents.
    """
    decay = WEIGHT_DECAY * math.sqrt(fitted.shape[1] / len(fitted))
    optimizer = torch.optim.AdamW(couplings.parameters(), LEARNING_RATE, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate_factor)
    first_nll = best_nll = _held_out_nll(couplings, held_out)
    best_step, best_weights = 0, copy.deepcopy(couplings.state_dict())
    for step in track(range(1, MOST_STEPS + 1), "Fitting a flow", MOST_STEPS):
        rows = torch.randint(len(fitted), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        couplings.nll(fitted[rows]).backward()
        nn.utils.clip_grad_norm_(couplings.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % STEPS_BETWEEN_CHECKS:
            continue
        nll = _held_out_nll(couplings, held_out)
        if nll < best_nll:
            best_nll, best_step, best_weights = nll, step, copy.deepcopy(couplings.state_dict())
        elif step - best_step >= PATIENCE * STEPS_BETWEEN_CHECKS:
            break
    couplings.load_state_dict(best_weights)
    return {"steps": best_step, "held_out_gain_nats": first_nll - best_nll}


def _learning_rate_factor(step: int) -> float:
    """A linear rise, then a cosine to 0."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / MOST_STEPS))


@torch.no_grad()
def _held_out_nll(couplings: Couplings, held_out: Float[Tensor, "others latent"]) -> float:
    return float(couplings.nll(held_out))
