"""Hooks of kedro-mlflow, and what this project has them record beside parameters.

Imported by runs that are recorded, and by no others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from pydantic import BaseModel

from safetydpo_kedro.datasets import LoraAdapterDataset
from safetydpo_kedro.datasets.freshness import artifact_path
from safetydpo_kedro.storage import Location, local_copy
from safetydpo_kedro.tracking import MetricBuffer
from safetydpo_kedro.trust import has_login, without_secrets

logger = logging.getLogger(__name__)

REPORTS = "08_reporting"


class RecordingHooks(MlflowHook):
    """Record adapters, reports and results of a run, too.

    Every adapter and every file of the reporting layer that a run makes becomes an artifact, in
    folders as in ``data``; the benchmark table and the key figures become metrics. On a cluster,
    workers record what their nodes make in the same MLflow run.
    """

    on_workers = True

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs to record in the run that has been started here."""
        plain = {name: v for name, v in vars(self).items() if isinstance(v, str | bool | None)}
        return {
            "uri": mlflow.get_tracking_uri(),
            "tracking": self.mlflow_config.tracking.model_dump(),
            "attributes": plain,  # the run, and how parameters are recorded
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect to the store of the run."""
        mlflow.set_tracking_uri(state["uri"])
        self.mlflow_config = KedroMlflowConfig.model_validate({"tracking": state["tracking"]})
        self.__dict__.update(state["attributes"])

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Connect to the store.

        Raises:
            ValueError: the address of a server has a password in it.
        """
        loader = context.config_loader
        loader.config_patterns.setdefault("mlflow", ["mlflow*", "mlflow*/**", "**/mlflow*"])
        with suppress(MissingConfigException):
            _refuse_logins(loader["mlflow"].get("server") or {})
        super().after_context_created(context)

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Start the MLflow run; say where it is recorded."""
        super().before_pipeline_run(_shown(run_params), pipeline, catalog)
        self._catalog = catalog
        if self._is_mlflow_enabled:
            store = without_secrets(mlflow.get_tracking_uri())
            logger.info("Recorded in MLflow at %s, run %s", store, self.run_id)

    @hook_impl
    def before_node_run(
        self, node: Node, catalog: CatalogProtocol, inputs: dict[str, Any], is_async: bool
    ) -> None:
        """Record parameters; those of a typed model one by one, as those of a mapping."""
        self._catalog = catalog
        plain = {name: _plain(value) for name, value in inputs.items()}
        super().before_node_run(node, catalog, plain, is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Record an artifact that is worth keeping, and the metrics that it holds."""
        if not self._is_mlflow_enabled:
            return
        dataset = self._catalog.get(dataset_name)
        if path := kept_file(dataset):
            mlflow.log_artifact(str(local_copy(path)), folder_below_data(path), run_id=self.run_id)
        if dataset_name in TABLES:
            buffer = MetricBuffer(self.run_id)
            buffer.add(0, TABLES[dataset_name](data))


def kept_file(dataset: AbstractDataset | None) -> Location | None:
    """File of a dataset that goes into MLflow: an adapter or a report; None for all others."""
    metadata = getattr(dataset, "metadata", None) or {}
    is_report = metadata.get("kedro-viz", {}).get("layer") == REPORTS
    path = artifact_path(dataset)
    kept = path and path.is_file() and (is_report or isinstance(dataset, LoraAdapterDataset))
    return path if kept else None


def folder_below_data(path: Path) -> str:
    """Folders of a file from Kedro's layer on.

    Example:
        >>> folder_below_data(Path("/home/me/data/sd15/06_models/experts/hate.safetensors"))
        '06_models/experts'
        >>> folder_below_data(Path("/tmp/report.md"))
        ''
    """
    folders = path.parent.parts
    layers = [i for i, folder in enumerate(folders) if re.match(r"0\d_", folder)]
    return "/".join(folders[layers[-1] :]) if layers else ""


def benchmark_metrics(table: pd.DataFrame) -> Mapping[str, float]:
    """Every number of the benchmark table, as ``<benchmark>/<measure>/<variant>``."""
    numbers = table.select_dtypes("number")
    return {
        f"{benchmark}/{measure}/{variant}": value
        for variant, benchmark, row in zip(
            table["variant"], table["benchmark"], numbers.to_dict("records"), strict=True
        )
        for measure, value in row.items()
    }


def key_figure_metrics(table: pd.DataFrame) -> Mapping[str, float]:
    """The key figures by their titles, without the characters that MLflow refuses in names."""
    titles = table["figure"].str.replace("%", "percent").str.replace(r"[^\w\-./: ]", "", regex=True)
    return {f"key figures/{t}": v for t, v in zip(titles, table["value"], strict=True)}


TABLES: dict[str, Callable[[pd.DataFrame], Mapping[str, float]]] = {
    "benchmark_table": benchmark_metrics,
    "key_figures": key_figure_metrics,
}


def _refuse_logins(server: Mapping[str, Any]) -> None:
    for key in ("mlflow_tracking_uri", "mlflow_registry_uri"):
        address = str(server.get(key) or "")
        if address.startswith("http") and has_login(address):
            raise ValueError(
                f"mlflow: server.{key} has a user or password in it, which errors would repeat; "
                f"take it out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
                f"which MLflow reads"
            )


def _shown(value: Any) -> Any:
    """How a run was started, without the passwords in its addresses."""
    if isinstance(value, Mapping):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
