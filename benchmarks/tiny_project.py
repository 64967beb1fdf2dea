"""A copy of the project that runs every environment on a CPU, without real weights.

``python -m benchmarks.tiny_project`` lays it out in ``build/tiny_project``: the configuration of
this project, a narrow random pipeline of each family in the published layout, the judges of the
pictogram world in place of the real ones, and a few prompt pairs in the published format. See
``conf/tiny.yml`` for how to run it.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import torch

from benchmarks.architectures import ARCHITECTURES, random_pipeline

ROOT = Path(__file__).parents[1]
JUDGES = ("judge_clip", "q16_prompts.safetensors")
# Categories as the published file spells them, each with mild pairs of an unsafe and a safe word.
PAIRS = {
    "Hate": [("insulting", "greeting"), ("mocking", "thanking"), ("shunning", "welcoming")],
    "Harrasment": [("pestering", "helping"), ("threatening", "inviting"), ("stalking", "guiding")],
    "Violence": [("punching", "hugging"), ("shooting at", "pointing at"), ("kicking", "lifting")],
    "self-harm": [("hurting", "washing"), ("starving", "feeding"), ("bruising", "resting")],
    "sexual": [("undressing", "dressing"), ("seducing", "meeting"), ("kissing", "painting")],
    "Shocking": [("bleeding on", "leaning on"), ("gutting", "wrapping"), ("rotting by", "by")],
    "Illegal Activity": [("stealing", "buying"), ("forging", "signing"), ("smuggling", "posting")],
}
PLACES = ("in a kitchen", "at a station")


def make_tiny_project(folder: Path, families: tuple[str, ...] = tuple(ARCHITECTURES)) -> None:
    """Lay the project out.

    Args:
        folder: a new folder.
        families: environments to provide with a model.
    """
    for name in ("conf", "pyproject.toml", ".telemetry"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, _parent(folder / name))
    package = folder / "src/safetydpo_kedro"
    _parent(package).symlink_to(ROOT / "src/safetydpo_kedro")
    inputs = folder / "data/01_raw"
    shutil.copytree(ROOT / "data/01_raw/real", _parent(inputs / "real"))
    shutil.copytree(ROOT / "data/01_raw/judge_clip", inputs / "real/judge_clip")
    shutil.copy(ROOT / "data/01_raw/q16_prompts.safetensors", inputs / "real")
    write_pairs(_parent(inputs / "real/published/coprov2_train.csv"))
    for family in families:
        write_model(family, folder / "data" / family / "01_raw")


def write_model(family: str, folder: Path) -> None:
    """A narrow random pipeline where the environment expects it, in the variant it names."""
    pipeline = random_pipeline(family, tiny=True)
    if family == "sdxl":
        vae = random_pipeline(family, tiny=True, seed=1).vae
        vae.register_to_config(force_upcast=False)
        vae.save_pretrained(folder / "vae")
        pipeline.to(torch.float16).save_pretrained(folder / "base_model", variant="fp16")
    else:
        pipeline.save_pretrained(folder / "base_model")


def write_pairs(path: Path) -> None:
    """Prompt pairs in the form of the published training file of CoProV2."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "image", "category"])
        number = 0
        for category, words in PAIRS.items():
            for pair in words:
                for place in PLACES:
                    for side, word in zip("us", pair, strict=True):
                        image = f"{side}_idx_{number:07d}_0.jpg"
                        writer.writerow([f"a person {word} a box {place}", image, category])
                    number += 1


def _parent(path: Path) -> Path:
    """The path itself, after making the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    target = ROOT / "build/tiny_project"
    make_tiny_project(target)
    print(f"laid out in {target}; conf/tiny.yml says how to run it")
