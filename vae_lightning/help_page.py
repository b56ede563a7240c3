"""The help page of train.py, from hydra's template, in a fraction of the time that hydra's own way to it takes."""

import string
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

SWEEP_SIGNS = (",", "range(", "choice(", "interval(", "glob(")


def help_page(arguments: Sequence[str], conf_dir: Path) -> str:
    """What can be chosen, and the run that the overrides among `arguments` would be; swept ones are left out.

    Raises:
        CompactHydraException: an override that hydra refuses.
    """
    overrides = [
        argument
        for argument in arguments
        if "=" in argument and argument[0] != "-" and not any(sign in argument for sign in SWEEP_SIGNS)
    ]
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        config = compose("config", overrides, return_hydra_config=True)
    template = string.Template(config.hydra.help.template)
    settings = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    return template.substitute(CONFIG=OmegaConf.to_yaml(settings))
