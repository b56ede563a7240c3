"""Guards of a run: the mean of the weights, non-finite losses, posterior collapse."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn, TrainerState

import callbacks.ema
from callbacks import EMA, NonFiniteLossError, PosteriorCollapse
from callbacks.posterior_collapse import _what_to_try
from vae_lightning import load_run
from vae_lightning.losses import FreeBits, GaussianShared, LinearWarmup, Objective, ObjectiveTerms, SquaredError
from vae_lightning.models import ConvVAE
from vae_lightning.runs.layout import MODEL_PREFIX
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

EMA_RUN = ["+callbacks.ema._target_=callbacks.EMA", "+callbacks.ema.decay=0.9", "trainer.max_epochs=3"]


def checkpoint(run_dir: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def model_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(MODEL_PREFIX)}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in model_weights(one))


# ---- the mean of the weights


@pytest.mark.slow
def test_checkpoints_hold_the_exponential_mean_and_the_raw_weights_beside_it(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_only = run_training("raw", "trainer.max_epochs=3")
    seen: list[dict[str, torch.Tensor]] = []
    original = callbacks.ema.EMA.on_train_batch_end

    def spy(self: EMA, trainer: L.Trainer, module: L.LightningModule, *others: Any) -> None:
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        original(self, trainer, module, *others)

    monkeypatch.setattr(callbacks.ema.EMA, "on_train_batch_end", spy)
    run_dir = run_training("ema", *EMA_RUN)
    content = checkpoint(run_dir)
    # the mean never feeds back into training
    assert distance(content["current_model_state"], checkpoint(raw_only)["state_dict"]) == 0
    assert distance(content["current_model_state"], content["state_dict"]) > 1e-4
    loaded = {f"{MODEL_PREFIX}{name}": tensor for name, tensor in load_run(run_dir, "last").model.state_dict().items()}
    assert distance(loaded, content["state_dict"]) == 0
    state = content["state_dict"]
    for name in model_weights(state):
        mean = seen[0][name]  # Lightning starts with the weights after the first step
        for count, weights in enumerate(seen[1:], start=1):
            decay = min(0.9, (1 + count) / (10 + count))
            mean = decay * mean + (1 - decay) * weights[name]
        torch.testing.assert_close(state[name], mean, rtol=1e-4, atol=1e-6)


def test_pictures_validation_and_test_use_the_mean(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three see the weights that the checkpoint of that epoch holds as its state_dict."""
    used: dict[str, torch.Tensor] = {}
    evaluate, draw = VAEModule.evaluate, callbacks.ReconstructionGrid.draw

    def spy_evaluate(self: VAEModule, images: Any, noise: Any, weight: Any) -> Any:
        used[self.trainer.state.stage.value] = self.model.posterior_head.bias.detach().clone()  # type: ignore[union-attr, operator]
        return evaluate(self, images, noise, weight)

    def spy_draw(self: Any, model: Any, faces: Any) -> Any:
        used["picture of the test" if "test" in used else "picture"] = model.posterior_head.bias.detach().clone()
        return draw(self, model, faces)

    monkeypatch.setattr(VAEModule, "evaluate", spy_evaluate)
    monkeypatch.setattr(callbacks.ReconstructionGrid, "draw", spy_draw)
    run_dir = run_training("ema", *EMA_RUN, "callbacks=[checkpoint,reconstruction]", "test=true")
    content = checkpoint(run_dir)
    name = f"{MODEL_PREFIX}posterior_head.bias"
    assert used["validate"].equal(content["state_dict"][name])
    assert used["picture"].equal(content["state_dict"][name])
    assert not used["train"].equal(content["state_dict"][name])
    for use in ("test", "picture of the test"):
        assert used[use].equal(checkpoint(run_dir, "best")["state_dict"][name])


def test_the_order_in_which_callbacks_are_listed_does_not_matter(run_training: Callable[..., Path]) -> None:
    def picture(run_dir: Path) -> bytes:
        return (run_dir / "images" / "reconstruction" / "epoch=0001.png").read_bytes()

    before, after = "[ema,checkpoint,reconstruction]", "[checkpoint,reconstruction,ema]"
    runs = [
        run_training(f"run{number}", f"callbacks={order}", "trainer.max_epochs=1", "callbacks.ema.decay=0.99")
        for number, order in enumerate((before, after))
    ]
    raw = run_training("raw", "callbacks=[checkpoint,reconstruction]", "trainer.max_epochs=1")
    assert picture(runs[0]) == picture(runs[1]) != picture(raw)


@pytest.mark.slow
def test_resumed_mean_equals_uninterrupted_mean(run_training: Callable[..., Path]) -> None:
    whole = checkpoint(run_training("whole", *EMA_RUN, "trainer.max_epochs=4"))
    run_training("parts", *EMA_RUN, "trainer.max_epochs=2")
    parts = checkpoint(run_training("parts", *EMA_RUN, "trainer.max_epochs=4", "ckpt_path=last"))
    for part in ("state_dict", "current_model_state"):
        assert distance(whole[part], parts[part]) == 0


@pytest.mark.slow
def test_ctrl_c_in_validation_does_not_mix_the_two_up(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = VAEModule.validation_step

    def interrupted(self: VAEModule, batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        if self.current_epoch == 1 and not self.trainer.sanity_checking:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    whole = checkpoint(run_training("whole", *EMA_RUN))
    monkeypatch.setattr(VAEModule, "validation_step", interrupted)
    with pytest.raises(SystemExit):
        run_training("parts", *EMA_RUN)
    monkeypatch.undo()
    signal.signal(signal.SIGINT, handler)
    parts = checkpoint(run_training("parts", *EMA_RUN, "ckpt_path=last"))
    for part in ("state_dict", "current_model_state"):
        assert distance(whole[part], parts[part]) == 0


class OneWeight(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("mean_of_batches", torch.zeros(1))
        self.register_buffer("num_batches", torch.tensor(0))


@pytest.mark.parametrize(("decay", "num_steps"), [(0.999, 375), (0.999, 20), (0.9, 375), (0.5, 3)])
def test_the_mean_of_a_short_run_is_not_that_of_its_first_steps(decay: float, num_steps: int) -> None:
    """Weights that are 1 after the first step and 0 after all others leave the share of the first in the mean."""
    module, ema = OneWeight(), EMA(decay)
    trainer = Mock(global_step=0)
    ema.setup(trainer, module, "fit")
    for step in range(num_steps):
        trainer.global_step = step + 1
        for values in (module.weight.data, module.mean_of_batches):
            values.fill_(float(step == 0))
        module.num_batches += 1  # type: ignore[operator]
        ema.on_train_batch_end(trainer, module, None, None, step)
    expected = 1.0
    for count in range(1, num_steps):
        expected *= min(decay, (1 + count) / (10 + count))
    mean = ema._average_model.module  # type: ignore[union-attr]
    assert mean.weight.item() == mean.mean_of_batches.item() == pytest.approx(expected, rel=1e-3)
    assert mean.num_batches.item() == num_steps  # a counter has no mean
    if num_steps > 100:
        assert expected < 1e-6 < 0.999**num_steps


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_decay_is_a_weight(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay}"):
        EMA(decay)


# ---- losses that are no numbers


def spoil_training_step(monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    """The objective's `at_call`-th training loss becomes NaN, as from one bad image."""
    original, calls = Objective.forward, [0]

    def spoiled(self: Objective, *arguments: Any) -> ObjectiveTerms:
        terms = original(self, *arguments)
        if not self.training:
            return terms
        calls[0] += 1
        bad = terms.loss * float("nan") if calls[0] == at_call else terms.loss
        return ObjectiveTerms(bad, terms.reconstruction_nats)

    monkeypatch.setattr(Objective, "forward", spoiled)


def test_a_loss_that_is_no_number_stops_the_run_with_names_and_good_weights(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_epoch = run_training("good", "trainer.max_epochs=1")
    spoil_training_step(monkeypatch, at_call=9)  # the third of the second epoch's six
    with pytest.raises(NonFiniteLossError, match=r"nan in epoch 2, at step 8, on the images 0000\d\d\.jpg") as caught:
        run_training("bad", "trainer.max_epochs=3", "callbacks=[checkpoint,non_finite_loss,loss_curves]")
    run_dir = tmp_path / "bad"
    names = (run_dir / "non_finite_batch.txt").read_text().split()
    assert len(names) == 8
    assert all(name in str(caught.value) for name in names)
    assert distance(checkpoint(run_dir)["state_dict"], checkpoint(one_epoch)["state_dict"]) == 0
    at_that_moment = checkpoint(run_dir, "before_non_finite_loss")
    assert at_that_moment["global_step"] == 8
    assert all(tensor.isfinite().all() for tensor in at_that_moment["state_dict"].values())
    assert (run_dir / "loss_curves.png").is_file()


def test_weights_that_are_no_numbers_never_replace_good_ones(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = VAEModule.on_train_batch_end

    def poison(self: VAEModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        original(self, outputs, batch, batch_idx)
        if self.current_epoch == 1:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(VAEModule, "on_train_batch_end", poison)
    with pytest.raises(NonFiniteLossError, match="in epoch 2, at step 7"):
        run_training("bad", "trainer.max_epochs=3", "callbacks=[checkpoint,non_finite_loss]")
    folder = tmp_path / "bad" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert all(tensor.isfinite().all() for tensor in checkpoint(tmp_path / "bad")["state_dict"].values())


def test_other_devices_are_asked_once_per_window(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the loss is looked at when numbers are fetched anyway, and the right step is named."""
    spoil_training_step(monkeypatch, at_call=3)
    original = callbacks.NonFiniteLoss.on_before_backward

    class OnAnotherDevice(torch.Tensor):
        device = torch.device("meta")  # type: ignore[assignment]

    def elsewhere(self: Any, trainer: Any, module: Any, loss: torch.Tensor) -> None:
        original(self, trainer, module, loss.detach().as_subclass(OnAnotherDevice))
        self._window[-1] = (self._window[-1][0], loss.detach(), trainer.global_step)

    monkeypatch.setattr(callbacks.NonFiniteLoss, "on_before_backward", elsewhere)
    with pytest.raises(NonFiniteLossError, match="at step 2,"):
        run_training("bad", "trainer.max_epochs=1", "trainer.log_every_n_steps=4", "callbacks=[non_finite_loss]")


# ---- silent latents


def test_collapse_is_reported_while_it_happens(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_dir = run_training(
            "run",
            "beta=1000",
            "trainer.max_epochs=3",
            "optimizer.lr=3e-3",
            "callbacks=[posterior_collapse]",
            "callbacks.posterior_collapse.after_steps=6",
        )
    assert read_metrics(run_dir / "metrics.csv")[-1]["val/active_units"] == 0
    messages = [record.getMessage() for record in caplog.records]
    during = [message for message in messages if message.startswith("Posterior collapse, epoch")]
    assert len(during) == 1
    for remedy in ("smaller beta (now 1000)", "beta_schedule=warmup or cyclical", "kl=free_bits"):
        assert remedy in during[0]
    assert any(message.startswith("Training ends with a collapsed posterior") for message in messages)


def test_only_what_is_not_in_use_is_advised() -> None:
    objective = Objective(GaussianShared(), beta_schedule=LinearWarmup(), kl=FreeBits())
    advice = _what_to_try(VAEModule(ConvVAE(image_size=32, latent_dim=2), objective, torch.optim.Adam))
    assert advice == "Things to try: a smaller beta (now 1); a smaller optimizer.lr."


def test_each_change_is_reported_once_and_health_is_not(caplog: pytest.LogCaptureFixture) -> None:
    module = VAEModule(ConvVAE(image_size=32, latent_dim=2), Objective(SquaredError()), torch.optim.Adam)
    callback = PosteriorCollapse(after_steps=200)
    trainer = Mock(spec=L.Trainer, sanity_checking=False, is_global_zero=True)
    trainer.state = TrainerState(fn=TrainerFn.FITTING)
    with caplog.at_level(logging.INFO, "vae_lightning"):
        measured = [(0.01, 0), (3.0, 2), (0.01, 0), (0.02, 0), (4.0, 1), (5.0, 0)]  # every training begins with little
        for epoch, (kl_nats, active_units) in enumerate(measured):
            trainer.current_epoch, trainer.global_step = epoch, 199 + epoch
            trainer.callback_metrics = {
                "val/kl_nats": torch.tensor(kl_nats),
                "val/active_units": torch.tensor(float(active_units)),
            }
            callback.on_validation_end(trainer, module)
        callback.on_fit_end(trainer, module)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Posterior collapse, epoch 3",
        "The posterior has recovered, epoch 5",
    ]


@pytest.mark.slow
def test_what_the_warning_advises_helps(run_training: Callable[..., Path]) -> None:
    """At a beta at which the posterior collapses, each remedy leaves more KL."""
    common = ["beta=30", "trainer.max_epochs=4", "optimizer.lr=3e-3"]
    without = read_metrics(run_training("without", *common) / "metrics.csv")[-1]["val/kl_nats"]
    for number, remedy in enumerate(("kl=free_bits", "beta_schedule=capacity", "reconstruction=gaussian_shared")):
        with_it = read_metrics(run_training(f"with{number}", *common, remedy) / "metrics.csv")[-1]["val/kl_nats"]
        assert with_it > 2 * without, remedy
