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
        entries: data set of any pipeline → its entry in ``conf/base``: itself, or the factory
            pattern that it matches; itself where it is only kept in memory.
    """

    pipelines: dict[str, Pipeline]
    default: Pipeline
    parameters: dict[str, dict[str, Any]]
    catalog: dict[str, dict[str, Any]]
    entries: dict[str, str]

    def in_default(self, name: str) -> bool:
        """Whether a pipeline is part of ``kedro run``."""
        return set(self.pipelines[name].nodes) <= set(self.default.nodes)


@cache
def load_project() -> Project:
    """Read the project as ``kedro run`` does, but for ``conf/local``."""
    bootstrap_project(ROOT)
    named = dict(pipelines)
    default = named.pop("__default__")
    validator = ParameterValidator(named)
    parameters, catalog = {}, {}
    for env in ("base", *ENVIRONMENTS):
        # Read at once: the globals that a loader makes known hold until the next one is made.
        loader = ExpertConfigLoader(str(CONF), env=env, **CONFIG_LOADER_ARGS)
        parameters[env] = validator.validate_raw_params(loader["parameters"])
        catalog[env] = loader["catalog"]
    return Project(
        pipelines=dict(sorted(named.items())),
        default=default,
        parameters=parameters,
        catalog=catalog,
        entries=_entries(named, catalog["base"]),
    )


def sections(pipeline: str) -> list[str]:
    """Names at the top of ``conf/base/parameters_<pipeline>.yml``; none without that file."""
    file = CONF / f"base/parameters_{pipeline}.yml"
    return list(yaml.safe_load(file.read_text("utf-8"))) if file.exists() else []


def _entries(named: dict[str, Pipeline], catalog: dict[str, Any]) -> dict[str, str]:
    resolver = CatalogConfigResolver(catalog)
    datasets = {name for pipeline in named.values() for name in pipeline.datasets()}
    return {
        name: name if name in catalog else resolver.match_dataset_pattern(name) or name
        for name in datasets
    }
