"""Composes the settings of all jobs of a sweep: what several jobs have in common is composed once."""

import pickle
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from vae_lightning.launch.composing import explained

OF_HYDRA = "hydra"
FOLDER = "${job_folder:${hydra.job.override_dirname}}"  # hydra.sweep.subdir in conf/config.yaml


class Composer:
    """Composes as Hydra does, which takes a third of a second per job, nearly all of it for the choices of groups.

    Args:
        config_name: of the root configuration.
        of_hydra: the overrides of Hydra's own settings, which all jobs share.
    """

    def __init__(self, config_name: str, of_hydra: Sequence[str]) -> None:
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self._config_name, self._of_hydra = config_name, list(of_hydra)
        _, self._repository = loader._parse_overrides_and_create_caching_repo(config_name, self._of_hydra)
        self._parse = cache(OverridesParser.create(config_loader=loader).parse_override)
        self._with_choices: dict[tuple[str, ...], bytes] = {}  # pickled, because that is copied three times as fast

    def settings(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The resolved settings of a job, without Hydra's own and without a run folder.

        Raises:
            HydraException, OmegaConfBaseException: an override that cannot be applied.
        """
        parsed = [self._parse(word) for word in overrides]
        choices = tuple(str(override.input_line) for override in parsed if self._is_choice(override))
        if choices not in self._with_choices:
            self._with_choices[choices] = pickle.dumps(self._without_hydra(choices))
        config = pickle.loads(self._with_choices[choices])
        values = [override for override in parsed if not self._is_choice(override)]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(container, dict)
        return {str(name): value for name, value in container.items()}

    def _is_choice(self, override: Override) -> bool:
        return bool(self._repository.group_exists(override.key_or_group)) and not isinstance(override.value(), dict)

    def _without_hydra(self, choices: Sequence[str]) -> Any:
        config = compose(self._config_name, [*self._of_hydra, *choices], return_hydra_config=True)
        with open_dict(config):
            del config["hydra"]
        config.run_dir = ""
        _resolve_run_dir(config)
        return config

    def explained(self, error: Exception, overrides: Sequence[str]) -> str:
        """Why Hydra refuses to compose a job, in one line."""
        return explained(error, self._config_name, [*self._of_hydra, *overrides])

    def named_by_overrides(self, overrides: Sequence[str], naming: Any) -> str:
        """`beta=4,seed=1`; `naming` is `hydra.job.config.override_dirname`."""
        parsed = [self._parse(word) for word in overrides]
        return str(get_overrides_dirname(parsed, naming.exclude_keys, naming.item_sep, naming.kv_sep))

    def folder_by_hydra(self, overrides: Sequence[str]) -> str:
        """The folder's name where `hydra.sweep.subdir` was set."""
        config = compose(self._config_name, [*self._of_hydra, *overrides], return_hydra_config=True)
        return str(OmegaConf.select(config, "hydra.sweep.subdir"))


def _resolve_run_dir(config: Any) -> None:
    """Writes the value in place of `${run_dir}`, which stands in every callback: resolving them takes longest."""
    for name in config:
        if OmegaConf.is_interpolation(config, name):
            if config._get_node(name)._value() == "${run_dir}":
                config[name] = config._get_root().run_dir
        elif OmegaConf.is_dict(config._get_node(name)):
            _resolve_run_dir(config[name])
