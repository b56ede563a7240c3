"""What a person types has the effect that it says, or is refused in one line before anything is written."""

from pathlib import Path

import pytest
from processes import SMALL, fork_train
from processes import train as train_process

from vae_lightning.launch import train
from vae_lightning.launch.command_line import prepare_command_line

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command is refused; nothing is left behind."""
    with pytest.raises(SystemExit) as ended:
        prepare_command_line(line, train.CONF_DIR)
    assert ended.value.code == 2
    assert not list(Path().iterdir())
    (message,) = capsys.readouterr().err.splitlines()
    return message


# without a composition, so in no time
REFUSED_AS_TYPED = [
    ("--beta=4", "write beta=4"),
    ("--beta 4", "write beta=4"),
    ("-beta 4", "write beta=4"),
    ("--model.latent-dim=64", "write model.latent_dim=64"),
    ("beta = 4", "without spaces, beta=4"),
    ("beta =4", "without spaces, beta=4"),
    ("beta= 4", "without spaces, beta=4"),
    ("data.root=/my photos", "'data.root=/my photos'"),
    ("beta", "write beta=…"),
    ("--betta=4", "did you mean beta?"),
    ("--multi beta=1,2", "did you mean --multirun?"),
    ("epochs=3", "did you mean trainer.max_epochs?"),
    ("lr=3", "did you mean optimizer.lr?"),
    ("+optimzer=adam", "did you mean optimizer?"),
    ("data.root=", "is it set?"),
    ("data.root= seed=1", "is it set?"),
    ("data.root=''", "is it set?"),
    ("+data.root=", "is it set?"),
    ("data.data_dir=", "is it set?"),
    ("hydra.run.dir=", "is it set?"),
    ("hydra.sweep.dir= -m", "is it set?"),
    ("ckpt_path=", "is it set?"),
    ("beta=", "is it set?"),
    ("model=", "is it set?"),
    ("=4", "is it set?"),
    ("--config-dir= beta=1", "is it set?"),
    ("-m data.root=/a,", "is it set?"),
    ("model=null", "allowed are conv, ladder, linear, patch, residual"),
    ("optimizer=null", "allowed are adam, adamax, adamw"),
    ("logger=null", "write logger=[] for none; allowed are csv, tensorboard"),
    ("callbacks=null", "write callbacks=[] for none; allowed are batch_size_finder"),
    ("~callbacks", "callbacks=[] for none"),
    ("~callbacks=[checkpoint]", "callbacks=[] for none"),
    ("callbacks=[checkpoint] +callbacks=ema", "write one, callbacks=[checkpoint,ema]"),
    ("+callbacks=ema callbacks=[checkpoint]", "write one, callbacks=[ema,checkpoint]"),
    ("+callbacks='ema' beta=1 callbacks=['checkpoint']", "write one, callbacks=[ema,checkpoint]"),
    ("callbacks=checkpoint +callbacks=[nonsense]", "write one, callbacks=[checkpoint,nonsense]"),
    ("callbacks=[checkpoint] ++callbacks=ema", "write one, callbacks=[checkpoint,ema]"),
    ("+callbacks=ema +callbacks=profile", "write one, +callbacks=[ema,profile]"),
    ("logger=[csv] +logger=tensorboard", "write one, logger=[csv,tensorboard]"),
    ("-m callbacks=[checkpoint] +callbacks=ema,profile", "one of them would have no effect"),
    ("model=conv beta=1 model=linear", "write one model=…"),
    ("experiment=fast experiment=residual", "write one experiment=…"),
    ("+model@callbacks.x=linear", "write model=…"),
    ("+callbacks@logger=ema", "write callbacks=…"),
    ("callbacks@callbacks=[ema]", "write callbacks=…"),
    ("beta=1,4", "needs -m"),
    ("beta=range(1,4)", "needs -m"),
    ("beta=[1", "cannot read this"),
    ("hydra/launcher=basic", "add -m"),
    ("hydra.sweep.dir=x", "add -m"),
    ("hydra.sweeper.n_trials=3", "add -m"),
    ("-m beta=1,4 hydra.run.dir=x", "hydra.sweep.dir=…"),
    ("-m hydra.sweep.dir=a,b", "cannot be swept"),
    ("-m ++hydra.verbose=true,false", "cannot be swept"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED_AS_TYPED)
def test_what_cannot_be_meant_is_refused(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["data.root=/my", "photos"] if "photos" in line else line.split()
    message = refusal(typed, capsys)
    assert words in message
    assert "add" not in message or "+" not in message.partition("add")[2]


REFUSED_WHEN_COMPOSED = [
    ("trainer.epochs=3", "Trainer takes no such argument (did you mean trainer.max_epochs?)"),
    ("model.latent=64", "ConvVAE takes no such argument (did you mean latent_dim?); it takes image_size"),
    ("callbacks.ema.decay=0.9", "add ema to callbacks=[…]"),
    ("beta=1 seed=2 beta=4", "beta=1 has no effect"),
    ("model=convv", "model=convv (did you mean conv?): allowed are conv, ladder, linear"),
]
MORE_OF_THEM = [
    ("trainer.gpus=1", "did you mean trainer.devices?"),
    ("model.batch_size=3", "did you mean data.batch_size?"),
    ("model=residual model.latent=64", "did you mean latent_dim?"),
    ("callbacks.temprature.every_n_epochs=2", "did you mean temperature?"),
    ("perceptual.weight=2", "choose perceptual=… first"),
    ("hydra.run.dirr=x", "did you mean dir?"),
    ("beta.x=1", "beta.x=1"),
    ("beta=abc", "beta=abc: must be a number"),
    ("test=maybe", "test=maybe: must be true or false"),
    ("callbacks=[checkpoint,emma]", "callbacks=emma (did you mean ema?)"),
    ("optimizer=adamm", "did you mean adam?"),
    ("-m model=lineer,conv", "did you mean linear?"),
    ("callbacks.kl_per_latent=null", "leave kl_per_latent out of callbacks=[…]"),
    ("logger.csv=null", "leave csv out of logger=[…]"),
    ("+callbacks.ema.decay=0.9", "add ema to callbacks=[…]"),
    ("++callbacks.ema.decay=0.9", "add ema to callbacks=[…]"),
    ("+logger.wandb.project=x", "add wandb to logger=[…]"),
    ("++beta=4 beta=1", "++beta=4 has no effect"),
    ("-m beta=1,4 beta=8", "beta=1,4 has no effect"),
    ("trainer={max_epochs:3} trainer.max_epochs=4", "trainer={max_epochs:3} has no effect"),
    ("model.latent_dim=4 ~model.latent_dim", "model.latent_dim=4 has no effect"),
    ("~callbacks.ema", "it is not there"),
    ("~beta", "cannot be removed"),
    ("+model=linear", "write model=linear"),
    ("++model=linear", "write model=linear"),
    ("+experiment.fast=1", "nothing reads experiment.fast"),
    ("+model/conv=x", "nothing reads model/conv"),
    ("optimized_metric=val/mse", "add -m hparams_search=rate_distortion"),
    ("-m beta=1,4 optimized_metric=val/mse", "add -m hparams_search=rate_distortion"),
    ("-m hparams_search=beta_grid ++beta=4", "write beta=4"),
    ("data.root=${oc.env:NOT_SET_AT_ALL}", "NOT_SET_AT_ALL"),
    ("data.root=${oc.env:SET_TO_NOTHING}", "is its variable set?"),
]


@pytest.mark.parametrize(
    ("line", "words"), [*REFUSED_WHEN_COMPOSED, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_OF_THEM)]
)
def test_what_would_have_no_effect_is_refused(
    line: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_TO_NOTHING", "")
    message = refusal(line.split(), capsys)
    assert words in message
    assert f"+{line.split('=')[0]}" not in message


ACCEPTED = [
    "trainer.deterministic=true",  # Lightning takes it, and trainer=default does not name it
    "experiment=attribute_classifier +callbacks=ema",
]
ALSO_ACCEPTED = [
    "+callbacks=[ema,profile]",
    "callbacks=ema",
    "beta='4'",
    "beta=4 beta=4",
    "callbacks=[checkpoint] callbacks.last_checkpoint.save_last=true",
    "model=linear experiment=residual trainer.max_epochs=3 debug=smoke",
    "optimizer.betas=[0.9,0.99]",
    "trainer={max_epochs:3,limit_val_batches:2}",
    "~model.norm",
    "++data.root=/photos",
    "-m hparams_search=beta_grid beta=1,2",
    "-m callbacks=[checkpoint],[checkpoint,ema]",
    "-m hparams_search=rate_distortion optimized_metric=val/mse",
]


@pytest.mark.parametrize("line", [*ACCEPTED, *(pytest.param(each, marks=pytest.mark.slow) for each in ALSO_ACCEPTED)])
def test_what_has_an_effect_is_accepted(line: str) -> None:
    words = prepare_command_line([*line.split(), "--cfg", "job"], train.CONF_DIR)
    assert ("++trainer.deterministic=true" in words) == ("deterministic" in line)


@pytest.mark.parametrize("word", ["++ckpt_path=last", "+ckpt_path='last'", 'ckpt_path="last"'])
def test_the_last_run_is_resumed_however_that_is_written(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run with a checkpoint" in refusal([word], capsys)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("model.norm=layer", "allowed are none, batch, group"),
        ("hydra.run.dir=a/b/c model.norm=layer", "allowed are none, batch, group"),
        ("data.root=/nowhere/at/all", "/nowhere/at/all is not a folder"),
        ("ckpt_path=/nowhere.ckpt", "there is no file /nowhere.ckpt"),
        ("++model.latent=64", "did you mean latent_dim?"),
        ("~data.image_size", "data.image_size"),
        ("-m beta=1,2 model.norm=layer", "allowed are none, batch, group"),
        ("-m sweep=mine model=conv,convv", "model=convv (did you mean conv?)"),
        ("-m hydra.sweep.dir=a/b model=conv,linear model.norm=group", "LinearVAE takes no such argument"),
        ("-m hydra.verbose=true,false", "cannot be swept"),
    ],
)
def test_a_refused_command_leaves_nothing(line: str, words: str, tmp_path: Path) -> None:
    ended = fork_train(*line.split(), "trainer.accelerator=cpu", cwd=tmp_path, expect=None)
    assert ended.returncode in (1, 2)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert line.startswith("-m") or len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.process
def test_a_refused_search_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    ended = fork_train("-m", "hparams_search=rate_distortion", "model.norm=layer", cwd=tmp_path, expect=2)
    assert "allowed are none, batch, group" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.process
def test_a_refused_command_leaves_an_earlier_run_as_it_was(tmp_path: Path) -> None:
    run = ["hydra.run.dir=run", *SMALL, "data=faces", "data.faces_count=40", "trainer.max_epochs=1"]
    train_process(*run, cwd=tmp_path)
    earlier = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.suffix in (".yaml", ".json")}
    assert {path.name for path in (tmp_path / "run" / ".hydra").iterdir()} == {
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    }
    fork_train(*run, "beta=3", cwd=tmp_path, expect=1)
    fork_train("hydra.run.dir=run", "ckpt_path=last", "model.norm=layer", cwd=tmp_path, expect=1)
    fork_train("hydra.run.dir=run", "ckpt_path=last", "data=celeba", "data.root=/nowhere", cwd=tmp_path, expect=1)
    kept = {path: content for path, content in earlier.items() if path.name != "status.json"}
    assert {path: path.read_bytes() for path in kept} == kept
