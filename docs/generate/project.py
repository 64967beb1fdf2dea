"""What the reference is made from: pipelines, typed parameters and the catalog, read by Kedro."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from kedro.io import CatalogConfigResolver
from kedro.pipeline import Pipeline
from kedro.validation import ParameterValidator

from safetydpo_kedro.config_loader import ExpertConfigLoader
from safetydpo_kedro.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
ENVIRONMENTS = ("sd15", "sd21", "sdxl")


@dataclass(frozen=True)
class Project:
    """The project without its data.

    Attributes:
        pipelines: name → pipeline, without the default one.
        default: the default pipeline.
        parameters: environment → parameters, typed where a node says how; ``base`` among them.
        catalog: environment → the catalog's entries, as Kedro reads them, paths filled in.
        patterns: of ``conf/base``.
    """

    pipelines: dict[str, Pipeline]
    default: Pipeline
    parameters: dict[str, dict[str, Any]]
    catalog: dict[str, dict[str, Any]]
    patterns: CatalogConfigResolver

    def entry(self, name: str) -> str:
        """Catalog entry of a data set: itself, the factory pattern that it matches, or itself."""
        name = name.partition("@")[0]
        if name in self.catalog["base"]:
            return name
        return self.patterns.match_dataset_pattern(name) or name

    def in_default(self, name: str) -> bool:
        """Whether a pipeline is part of ``kedro run``."""
        return set(self.pipelines[name].nodes) <= set(self.default.nodes)


@cache
def load_project() -> Project:
    """Read the project as ``kedro run`` does, but for ``conf/local``."""
    bootstrap_project(ROOT)
    named = dict(pipelines)
    default = named.pop("__default__")
    loaders = {env: _loader(env) for env in ("base", *ENVIRONMENTS)}
    validator = ParameterValidator(named)
    return Project(
        pipelines=dict(sorted(named.items())),
        default=default,
        parameters={
            env: validator.validate_raw_params(loader["parameters"])
            for env, loader in loaders.items()
        },
        catalog={env: loader["catalog"] for env, loader in loaders.items()},
        patterns=CatalogConfigResolver(loaders["base"]["catalog"]),
    )


def sections(pipeline: str) -> list[str]:
    """Names at the top of ``conf/base/parameters_<pipeline>.yml``; none without that file."""
    file = CONF / f"base/parameters_{pipeline}.yml"
    return list(yaml.safe_load(file.read_text("utf-8"))) if file.exists() else []


def _loader(env: str) -> ExpertConfigLoader:
    return ExpertConfigLoader(str(CONF), env=env, **CONFIG_LOADER_ARGS)
