"""Project folders in which every pipeline runs in a minute, and what a run leaves in them."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from safetydpo_kedro.artifacts import file_digest
from safetydpo_kedro.diffusion.lora_files import load_adapter, save_adapter
from safetydpo_kedro.settings import CATEGORIES, GUIDED

from ..metrics.test_inception import random_weights
from ..prompts.importers.files import COPROV2, pair_rows, write_csv
from ..small_run import PARAMETERS, make_small_project

# The smallest budgets with which every artifact of the other pipelines comes about.
STEPS = {"steps": 4, "warmup_steps": 1, "checkpoint_every": 2, "batch_size": 4}
MORE = {
    "adversarial": {
        "goals": {"per_category": 1},
        "search": {
            "fresh_seeds": 1,
            "attacks": {
                "ring_a_bell": {"length": 3, "population": 4, "generations": 2},
                "mma_diffusion": {"length": 3, "steps": 1, "top": 4, "candidates": 4},
                "p4d": {"length": 3, "steps": 2, "check_every": 1},
                "unlearn_diff_atk": {"places": 2, "timesteps": 1, "iterations": 2},
                "sneaky_prompt": {"places": 1, "queries": 4, "images": 2},
                "random_words": {"length": 3, "queries": 2},
            },
        },
    },
    "hardening": {"goals": {"per_category": 1}},
    "ablations": {
        "joint": {"all_single_equal": {"steps": 2}},
        "questions": {"per_category": 1, "per_neutral_concept": 1},
        "recipes": {
            "training": {"steps": 2, "preservation": {"rows": 2}},
            "questions": {"per_category": 1, "per_other_category": 1},
        },
    },
    "pictogram_pretraining": {
        "clip": {"optimization": STEPS},
        "judge_clip": {"optimization": STEPS},
        "vae": {"whitening_images": 64, "optimization": STEPS},
        "unet": {"images": 64, "optimization": STEPS},
        "classifier": {"optimization": STEPS},
        "q16": {"images": 64, "steps": 4},
        "reference": {"images": 20},
        "check": {"images_per_name": 1, "sampling": {"steps": 1}},
    },
}
# Variants that differ in nothing from others but their weights.
SKIPPED = dict.fromkeys([*CATEGORIES[1:], "linear", *GUIDED[1:]], True)
# Of the ablations, arms that differ in what they need.
ARMS = {
    "strategies": ("svd", "co_merge"),
    "variants": ("fitted rows",),
    "kinds": ("task_arithmetic",),
    "counts": ("co_merge",),
}
# Pipeline → the pipelines whose results it needs. Each starts where the last of them has ended.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "prompt_import": (),
    "judge_conversion": (),
    "pictogram_pretraining": (),
    "dataset_generation": (),
    "expert_training": ("dataset_generation",),
    "merging": ("expert_training",),
    "incremental": ("merging",),
    "evaluation": ("merging",),
    "export": ("evaluation",),
    "adversarial": ("evaluation",),
    "hardening": ("adversarial",),
    "scoring": ("prompt_import",),
    "ablations": ("dataset_generation",),
}
PUBLISHED = {
    "i2p.csv": "prompt,categories,evaluation_seed,evaluation_guidance\n"
    'a red thing,"hate,violence",11,7.5\na blue thing,violence,12,2.0\n',
    "ud.txt": "an odd thing\na bad thing\n",
    "coco.csv": "image_id,source,prompt,evaluation_seed\n"
    + "".join(f"{i},coco-30k,a bus at number {i},{i}\n" for i in range(5)),
}
# Measured times are the only things that differ from run to run: columns, and files with them.
TIMES = re.compile(r"seconds|samples_per_second")
TIMED = re.compile(r"_history\.parquet$")


def make_project(folder: Path) -> Path:
    """A project without artifacts, with small budgets for all pipelines and all inputs."""
    make_small_project(folder)
    parameters = {**PARAMETERS, **MORE}
    parameters["evaluation"] = {**PARAMETERS["evaluation"], "skip": SKIPPED}
    (folder / "conf/local/parameters.yml").write_text(yaml.safe_dump(parameters))
    _prune_ablations(folder / "conf/base/parameters_ablations.yml")
    raw = folder / "data/01_raw"
    published = raw / "published"
    published.mkdir()
    for name, text in PUBLISHED.items():
        (published / name).write_text(text)
    write_csv(published / "coprov2_train.csv", [COPROV2, *pair_rows(1), *pair_rows(1, "Hate")])
    return folder


def bring_inputs(project: Path, pipeline: str) -> None:
    """Put there what this pipeline alone starts from."""
    raw = project / "data/01_raw"
    if pipeline == "incremental":
        merge = load_adapter(project / "data/06_models/merges/co_merge.safetensors")
        # As if the expert that is added by default were not in it.
        merge.metadata["merge_experts"] = json.dumps(list(CATEGORIES[:-1]))
        save_adapter(merge, raw / "existing_merge.safetensors")
    if pipeline == "judge_conversion":
        prompts = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float16)
        (raw / "q16_prompts.p").write_bytes(pickle.dumps(prompts, protocol=3))
        torch.save(random_weights(), raw / "inception.pth")


def _prune_ablations(path: Path) -> None:
    parameters: dict[str, Any] = yaml.safe_load(path.read_text())
    ablations = parameters["ablations"]
    for sweep, names in ARMS.items():
        ablations[sweep] = {n: {**ablations[sweep][n], "strengths": [1.0]} for n in names}
    sweeps = ablations["recipes"]["sweeps"]
    ablations["recipes"]["sweeps"] = {
        name: dict([*arms.items()][:1]) for name, arms in sweeps.items()
    }
    path.write_text(yaml.safe_dump(parameters, sort_keys=False))


def contents(folder: Path) -> dict[str, Any]:
    """Every folder and file below a folder, hidden ones too, without the times that it holds."""
    return {
        path.relative_to(folder).as_posix(): "folder" if path.is_dir() else _content(path)
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def _content(path: Path) -> Any:
    if path.name.endswith("manifest.json"):
        manifest = json.loads(path.read_text())
        for name in manifest["files"]:
            if _has_times(path.parent / name):
                manifest["files"][name] = {}
        return manifest
    if path.suffix == ".parquet" and _has_times(path):
        table = pd.read_parquet(path)
        return table[[name for name in table if not TIMES.search(name)]].to_json()
    return None if _has_times(path) else file_digest(path)


def _has_times(path: Path) -> bool:
    return TIMED.search(path.name) is not None


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is different, in a line each."""
    lost = [f"lost: {name}" for name in expected.keys() - found.keys()]
    new = [f"left over: {name}" for name in found.keys() - expected.keys()]
    other = [f"differs: {n}" for n in expected.keys() & found.keys() if expected[n] != found[n]]
    return sorted(lost + new + other)
