"""Nodes of ``prompt_import``: thin wrappers of ``prompts.importers``.

A source whose file is not there gives an empty table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pandas as pd

from safetydpo_kedro.pipelines.prompt_import.parameters import (
    CocoParameters,
    CommonParameters,
    CoproParameters,
    LeakCheckedParameters,
)
from safetydpo_kedro.prompts.importers import coco, copro, coprov2, coprov2_images
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.pairs import concatenate, import_table
from safetydpo_kedro.prompts.importers.prompt_list import PromptListParameters, import_prompts
from safetydpo_kedro.prompts.importers.report import (
    Imported,
    SourceCounts,
    count_leaks,
    import_report,
    imported,
)
from safetydpo_kedro.prompts.importers.schema import Intake, prompts_table
from safetydpo_kedro.settings import CATEGORIES

logger = logging.getLogger(__name__)

Files = dict[str, str | None]
Shards = dict[str, Callable[[], pd.DataFrame]]


def find_published_files(**paths: Path) -> Files:
    """The file name of each source, ``None`` for those that are not there.

    Raises:
        ValueError: none is there.
    """
    files = {source: path.name if path.exists() else None for source, path in paths.items()}
    if not any(files.values()):
        places = "\n".join(f"  {source}: {path}" for source, path in paths.items())
        raise ValueError(f"there is nothing to import; put any of these files there:\n{places}")
    absent = [f"{source} ({paths[source]})" for source, file in files.items() if file is None]
    if absent:
        logger.info("not there, and so not imported: %s", ", ".join(absent))
    return files


def import_coprov2_train(files: Files, file: Path, common: CommonParameters) -> Imported:
    """Pairs of CoProV2."""
    intake, path = _open("coprov2_train", files, file)
    pairs = coprov2.import_pairs(path, _categories(common), common.seed, intake) if path else []
    shared = coprov2.images_in_several_categories(pairs)
    return imported(intake, path, import_table(pairs), in_several_categories=shared)


def import_copro_train(
    files: Files, file: Path, common: CommonParameters, parameters: CoproParameters
) -> Imported:
    """Pairs of CoPro."""
    intake, path = _open("copro", files, file)
    settings = parameters.sections, _categories(common), common.seed, intake
    pairs = copro.import_pairs(path, *settings) if path else []
    return imported(intake, path, import_table(pairs))


def import_copro_test(
    files: Files, file: Path, common: CommonParameters, parameters: CoproParameters
) -> Imported:
    """Test prompts of CoPro."""
    intake, path = _open("copro", files, file, "copro_test")
    settings = parameters.test_sections, _categories(common), common.seed, intake
    prompts = copro.import_prompts(path, *settings) if path else []
    return imported(intake, path, prompts_table(prompts))


def import_coprov2_test(
    files: Files,
    file: Path,
    coprov2_pairs: pd.DataFrame,
    common: CommonParameters,
    parameters: LeakCheckedParameters,
) -> Imported:
    """Test prompts of CoProV2, and how many of them occur in training."""
    trained = {*coprov2_pairs["unsafe_prompt"], *coprov2_pairs["safe_prompt"]}
    banned = trained if parameters.remove_leaks else set()
    result = _import_list("coprov2_test", files, file, common, parameters, banned)
    leaks = count_leaks(result, trained)
    if leaks and not parameters.remove_leaks:
        logger.warning(
            "coprov2_test: %d prompts occur in training too; "
            "prompt_import.coprov2_test.remove_leaks=true leaves them out",
            leaks,
        )
    return result._replace(counts={**result.counts, "leaks": leaks})


def import_i2p(
    files: Files, file: Path, common: CommonParameters, parameters: PromptListParameters
) -> Imported:
    """I2P."""
    return _import_list("i2p", files, file, common, parameters)


def import_ud(
    files: Files, file: Path, common: CommonParameters, parameters: PromptListParameters
) -> Imported:
    """The lists of Unsafe Diffusion."""
    return _import_list("ud", files, file, common, parameters)


def import_custom(
    files: Files, file: Path, common: CommonParameters, parameters: PromptListParameters
) -> Imported:
    """A list of your own."""
    return _import_list("custom", files, file, common, parameters)


def import_coco(
    files: Files, file: Path, common: CommonParameters, parameters: CocoParameters
) -> Imported:
    """COCO captions."""
    intake, path = _open("coco", files, file)
    if path is None or path.suffix != ".json":
        return _import_list("coco", files, file, common, parameters)
    prompts = coco.import_annotations(path, parameters.concept, common.seed, intake)
    return imported(intake, path, prompts_table(prompts))


def import_coprov2_images(
    files: Files, file: Path, coprov2_pairs: pd.DataFrame
) -> tuple[Shards, pd.DataFrame, dict[str, Any]]:
    """Images of the pairs of CoProV2."""
    intake, path = _open("coprov2_images", files, file)
    found = coprov2_images.find_images(path, coprov2_pairs, intake) if path else []
    pairs = coprov2_pairs.iloc[[pair.position for pair in found]]
    _, rejected, counts = imported(intake, path, pairs)
    return coprov2_images.plan_shards(found, coprov2_pairs), rejected, counts


def collect_pairs(*tables: pd.DataFrame) -> pd.DataFrame:
    """The pairs of all sources."""
    return concatenate(tables)


def report_import(**results: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows set aside, and the numbers of every source.

    Args:
        results: counts and rejected rows of each source, as ``<source>_counts`` and
            ``<source>_rejected``.
    """
    counts = [SourceCounts(**value) for name, value in results.items() if name.endswith("_counts")]
    tables = [value for name, value in results.items() if name.endswith("_rejected")]
    rejected = pd.concat(tables, ignore_index=True)
    report = import_report(counts, rejected)
    for row in report[report["file"].notna()].itertuples():
        logger.info(
            "%s: %d of %s taken; set aside: %s",
            *(row.source, row.imported, f"{row.rows} rows", row.reasons or "none"),
        )
    return rejected, report


def _open(
    source: str, files: Files, file: Path, name: str | None = None
) -> tuple[Intake, Path | None]:
    """The books of a source, and where it lies if it is there."""
    return Intake(name or source), file if files[source] else None


def _categories(common: CommonParameters) -> Categories:
    return Categories(CATEGORIES, common.category_aliases)


def _import_list(
    source: str,
    files: Files,
    file: Path,
    common: CommonParameters,
    parameters: PromptListParameters,
    banned: Collection[str] = frozenset(),
) -> Imported:
    intake, path = _open(source, files, file)
    settings = parameters, _categories(common), common.seed, intake, banned
    prompts = import_prompts(path, *settings) if path else []
    return imported(intake, path, prompts_table(prompts))
