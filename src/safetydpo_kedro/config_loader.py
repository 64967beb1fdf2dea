"""Kedro's configuration loader, with the parameters of every expert filled in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf


class ExpertConfigLoader(OmegaConfigLoader):
    """Gives each expert its parameters: the common ones, and over them its own.

    The parameters ``expert_training`` hold for every expert. What stands under an expert's name
    (``hate.expert_training.steps``), in any environment or on the command line, wins. This is
    done after Kedro has merged environments and runtime parameters, so that a change of the
    common value reaches every expert, and a new category needs no configuration at all.

    Args:
        experts: name of each expert → the categories that it is trained on.
        kwargs: of :class:`kedro.config.OmegaConfigLoader`.
    """

    common = "expert_training"

    def __init__(self, *args: Any, experts: dict[str, Iterable[str]], **kwargs: Any) -> None:
        self._experts = {name: list(categories) for name, categories in experts.items()}
        super().__init__(*args, **kwargs)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Configuration of one kind; ``parameters`` come with a section for every expert."""
        config = super().__getitem__(key)
        if key == "parameters" and self.common in config:
            for name, categories in self._experts.items():
                own = {"categories": categories} | (config.get(name) or {})
                merged = OmegaConf.merge(config[self.common], own.get(self.common) or {})
                config[name] = own | {self.common: OmegaConf.to_container(merged)}
        return config
