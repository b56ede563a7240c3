"""Run by test_compile.py in a process of its own: the shape checks around every function cannot be compiled.

Takes a JSON list of [backend, overrides] and prints one of what `compare` gives for each.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.losses import KLWeight
from vae_lightning.training.vae_module import VAEModule

NUM_STEPS = 6
SMALL = ["data.image_size=32", "model.latent_dim=6", "callbacks=[]", "logger=[]", "trainer.accelerator=cpu"]


def take_steps(module: VAEModule, backend: str | None, precision: str) -> list[float]:
    evaluate = torch.compile(module.evaluate, backend=backend, dynamic=False) if backend else module.evaluate
    optimizer = module.configure_optimizers()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    losses = []
    for step in range(NUM_STEPS):
        noise = torch.randn(16, module.model.latent_dim, generator=generator)
        weight = KLWeight(torch.tensor(step / NUM_STEPS), torch.tensor(float(step)))  # a warm-up
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss: Tensor = evaluate(images, noise, weight).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def compare(backend: str, overrides: list[str]) -> dict[str, object]:
    """Losses of some steps, eager float32 beside compiled, and how far apart the weights end, relative to their way."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        plain = to_plain(compose("config", [*SMALL, "run_dir=unused", *overrides]))
    eager = train.build_module(plain)
    compiled = copy.deepcopy(eager)
    start = copy.deepcopy(eager.state_dict())
    losses = {
        "eager": take_steps(eager, None, "32-true"),
        "compiled": take_steps(compiled, backend, plain["trainer"]["precision"]),
    }
    moved = [value - start[f"model.{name}"] for name, value in eager.model.named_parameters()]
    apart = [one - other for one, other in zip(eager.model.parameters(), compiled.model.parameters(), strict=True)]
    norms = [torch.cat([each.flatten() for each in differences]).norm() for differences in (apart, moved)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return {**losses, "apart": (norms[0] / norms[1]).item(), "graphs": graphs}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([compare(backend, overrides) for backend, overrides in json.loads(sys.argv[1])]))  # noqa: T201
