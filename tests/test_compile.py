"""A compiled step computes what the eager one does, in float32 and in bfloat16, and never waits for the device."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_LADDER
from hydra import compose, initialize_config_dir
from processes import run
from torch.utils._python_dispatch import TorchDispatchMode

from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.hardware import check_compile
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.losses import KLWeight
from vae_lightning.runs.load import load_run
from vae_lightning.training.vae_module import VAEModule

SMALL = ["data.image_size=32", "model.latent_dim=6", "callbacks=[]", "logger=[]", "trainer.accelerator=cpu"]
STEPS = {
    "default": [],
    "residual": ["model=residual", "model.widths=[8,16]", "kl=free_bits", "reconstruction=gaussian_per_pixel"],
    "batch_norm": ["model.norm=batch", "reconstruction=gaussian_shared", "beta_schedule=capacity"],
    "linear": ["model=linear", "posterior=deterministic", "reconstruction=bce"],
    "ladder": [*TINY_LADDER, "kl.free_nats=[3,2]", "optimizer=adamax"],
    "perceptual": ["perceptual=vgg16", "reconstruction=absolute_error"],
}


def module_of(overrides: list[str]) -> VAEModule:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return train.build_module(to_plain(compose("config", [*SMALL, "run_dir=unused", *overrides])))


class Transfers(TorchDispatchMode):
    """Everything that leaves or enters the meta device, which stands for a GPU here."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        devices = {value.device.type for value in args if isinstance(value, torch.Tensor)}
        if isinstance(result, torch.Tensor) and devices and result.device.type not in devices:
            self.seen.append(f"{function}: {devices} -> {result.device}")
        return result


@pytest.mark.parametrize("overrides", STEPS.values(), ids=STEPS)
def test_a_step_neither_asks_the_device_for_numbers_nor_sends_it_any(overrides: list[str]) -> None:
    """On the meta device a question for a number is an error, as on a GPU it would be a wait."""
    module = module_of(overrides).to("meta")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    images = torch.empty(4, 32, 32, 3, dtype=torch.uint8, device="meta").permute(0, 3, 1, 2)
    noise = torch.empty(4, module.model.latent_dim, device="meta")

    def step(number: int) -> torch.Tensor:
        weight = KLWeight(*(torch.full((), value, device="meta") for value in (1.0, 2.0)))
        evaluated = module.evaluate(images, noise, weight)
        module._add("fit", evaluated, with_likelihood=False)
        module._calibrate(evaluated.sums, number)
        evaluated.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return evaluated.loss

    step(0)  # VGG16 moves to the device with the first images
    with Transfers() as transfers:
        loss = step(1)
    assert transfers.seen == []
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


@pytest.mark.nightly
@pytest.mark.process
def test_compiled_steps_are_the_eager_ones(torch_home: Path) -> None:
    """In float32 to rounding; in bfloat16, losses to 1e-3. Each is one graph, whatever beta does meanwhile."""
    cases = [("aot_eager", [*overrides, "trainer.precision=32-true"]) for overrides in STEPS.values()]
    cases.append(("inductor", ["model.widths=[8,16]", "trainer.precision=bf16-mixed"]))
    script = Path(__file__).with_name("compiled_steps.py")
    finished = run(sys.executable, str(script), json.dumps(cases), cwd=script.parent, TORCH_HOME=str(torch_home))
    for (_, overrides), found in zip(cases, json.loads(finished.stdout.splitlines()[-1]), strict=True):
        in_float32 = overrides[-1] == "trainer.precision=32-true"
        assert found["compiled"] == pytest.approx(found["eager"], rel=2e-5 if in_float32 else 1e-3), overrides
        assert found["apart"] < (0.01 if in_float32 else 0.3), overrides
        assert found["graphs"] == 1, overrides
        assert found["eager"][0] != found["eager"][-1]


@pytest.mark.slow
def test_training_uses_the_compiled_step(run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def spy(function: Callable[..., Any], **arguments: object) -> Callable[..., Any]:
        asked.append(arguments)
        return function

    monkeypatch.setattr(torch, "compile", spy)
    settings = ["trainer.max_epochs=2", "+callbacks=ema", "beta_schedule=warmup"]
    compiled = run_training("compiled", "compile=reduce-overhead", *settings)
    assert asked == [{"mode": "reduce-overhead", "dynamic": False}]
    eager = run_training("eager", *settings)
    assert len(asked) == 1
    timed = [
        torch.load(path / "checkpoints" / "last.ckpt")["callbacks"]["Throughput"]["images_seen"]
        for path in (eager, compiled)
    ]
    assert timed == [96, 72]  # without the batches in which a step is compiled
    for name, weights in load_run(compiled).model.state_dict().items():
        assert torch.equal(weights, load_run(eager).model.state_dict()[name])


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("on", r"compile=on: allowed are off, default, reduce-overhead, max-autotune"),
        ("reduce_overhead", r"did you mean reduce-overhead\?"),
    ],
)
def test_modes_that_do_not_exist(mode: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_compile(mode, "auto", runs_here=True)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_there() -> str:
        raise InvalidCxxCompiler()

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_there)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.* take compile=off"):
        check_compile("default", "cpu", runs_here=True)
    check_compile("default", "cpu", runs_here=False)  # it will run elsewhere
    check_compile("off", "cpu", runs_here=True)
