"""Kedro's configuration loader: parameters of every expert and variant, this machine's secrets."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import resources
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

LOCAL = "local"


def package_file(path: str) -> str:
    """Where a file of the installed package lies; catalogs name it as ``${package:path}``.

    Example:
        >>> package_file("pictograms/assets/NOTICE").endswith("pictograms/assets/NOTICE")
        True
    """
    return str(resources.files("safetydpo_kedro").joinpath(path))


class ExpertConfigLoader(OmegaConfigLoader):
    """Gives each expert its parameters: the common ones, and over them its own.

    The parameters ``expert_training`` hold for every expert. What stands under an expert's name
    (``hate.expert_training.steps``), in any environment or on the command line, wins. This is
    done after Kedro has merged environments and runtime parameters, so that a change of the
    common value reaches every expert, and a new category needs no configuration at all.

    Of every variant ``evaluation.skip`` says whether it is left out: no, unless it is named.

    Credentials in ``conf/local`` hold for every environment, because they belong to a machine;
    those that an environment states itself win.

    Args:
        experts: name of each expert → the categories that it is trained on.
        variants: names of all variants of the evaluation.
        kwargs: of :class:`kedro.config.OmegaConfigLoader`.
    """

    common = "expert_training"

    def __init__(
        self,
        *args: Any,
        experts: dict[str, Iterable[str]],
        variants: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        self._variants = list(variants)
        self._experts = {name: list(categories) for name, categories in experts.items()}
        super().__init__(*args, **kwargs)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Configuration of one kind; ``parameters`` come with a section for every expert."""
        if key == "credentials" and key not in self:
            return self._credentials()
        config = super().__getitem__(key)
        if key == "parameters" and self.common in config:
            for name, categories in self._experts.items():
                own = {"categories": categories} | (config.get(name) or {})
                merged = OmegaConf.merge(config[self.common], own.get(self.common) or {})
                config[name] = own | {self.common: OmegaConf.to_container(merged)}
        if key == "parameters" and "evaluation" in config:
            skip = config["evaluation"].get("skip") or {}
            config["evaluation"]["skip"] = dict.fromkeys(self._variants, False) | skip
        return config

    def _credentials(self) -> dict[str, Any]:
        """Of ``conf/base``, under those of ``conf/local``, under those of the environment.

        Raises:
            MissingConfigException: there are none at all.
        """
        found: dict[str, Any] = {}
        files: set[Any] = set()
        patterns = self.config_patterns["credentials"]
        for env in dict.fromkeys([self.base_env, LOCAL, self.env or self.default_run_env]):
            folder = self._get_conf_env_path(env)
            with suppress(MissingConfigException):  # no such folder
                found |= self.load_and_merge_dir_config(
                    folder, patterns, "credentials", files, read_environment_variables=True
                )
        if not files:
            raise MissingConfigException(f"no {' or '.join(patterns)} in {self.conf_source}")
        return found
