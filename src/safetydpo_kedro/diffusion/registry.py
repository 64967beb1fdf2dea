"""Families of models by the name of their diffusers pipeline class."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from diffusers import DiffusionPipeline

from safetydpo_kedro.diffusion.model import DiffusionModel

_FAMILIES: dict[str, type[DiffusionModel]] = {}


def register(pipeline_class: str) -> Callable[[type[DiffusionModel]], type[DiffusionModel]]:
    """Make a class the family of a pipeline class; it must live in ``diffusion/families/``.

    Raises:
        ValueError: the pipeline class has a family already.
    """

    def decorate(family: type[DiffusionModel]) -> type[DiffusionModel]:
        if pipeline_class in _FAMILIES:
            raise ValueError(f"{pipeline_class} has a family already, {_FAMILIES[pipeline_class]}")
        _FAMILIES[pipeline_class] = family
        return family

    return decorate


def family_of(pipeline_class: str) -> type[DiffusionModel]:
    """The family of a pipeline class.

    Raises:
        ValueError: no family knows it.
    """
    # Families need this module to register, so it cannot import them when it is loaded.
    import_module("safetydpo_kedro.diffusion.families")
    if pipeline_class not in _FAMILIES:
        raise ValueError(
            f"no model family knows the pipeline class '{pipeline_class}', only "
            f"{', '.join(sorted(_FAMILIES))}; a new family is one file in diffusion/families/"
        )
    return _FAMILIES[pipeline_class]


def diffusion_model(pipeline: DiffusionPipeline) -> DiffusionModel:
    """The model behind a diffusers pipeline, as its family sees it.

    Raises:
        ValueError: no family knows the pipeline's class.
    """
    return family_of(type(pipeline).__name__)(pipeline)
