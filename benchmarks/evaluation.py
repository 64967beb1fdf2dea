"""Images judged per second, and whether the way they are judged changes the verdicts.

Run ``python -m benchmarks.evaluation``; it prints Markdown. Ways are timed in turns, on the same
device, images and weights:

*project*: :class:`~safetydpo_kedro.metrics.judging.Panel` over a table of images: an image is read
once, Q16 and NudeNet see batches.
*one by one*: the usual scripts: first Q16 over all image files, open_clip's transform and an
embedding for each, then the ``nudenet`` package over all files, each read again.

Both use the same weights, resolution and precision. Full-size CLIP has random weights: what it
says means nothing, what it costs is the same.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from nudenet import NudeDetector
from numpy.typing import NDArray
from PIL import Image

from benchmarks.models import silence
from benchmarks.tables import machine, table
from benchmarks.timing import in_turns, speedup, timed
from safetydpo_kedro.images import encode_images
from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.metrics.config import NudityConfig, VerdictsConfig
from safetydpo_kedro.metrics.judging import Panel, look_at_table
from safetydpo_kedro.metrics.nudity import NudityJudge
from safetydpo_kedro.metrics.q16 import q16_score
from safetydpo_kedro.metrics.verdicts import give_verdicts

ROOT = Path(__file__).parents[1]
OFFICIAL, PROJECT = "one by one", "project"
JUDGES = ("q16", "nudenet")


@dataclass(frozen=True)
class Setting:
    """What is judged, and by what.

    Attributes:
        title: of the row.
        images: in every round.
        size: side of the images, in pixels.
        clip: directory of an open_clip model, or a name of open_clip's registry, for which random
            weights are drawn.
        batch: images that the project judges at once.
        device: of CLIP.
        rounds: that count; one more comes before them.
    """

    title: str
    images: int
    size: int
    clip: str
    batch: int
    device: str = "cpu"
    rounds: int = 3


SHIPPED = str(ROOT / "data/01_raw/judge_clip")
FULL_SIZE = "ViT-L-14-quickgelu"
CPU_SETTINGS = (
    Setting("pictograms, shipped CLIP", 128, 32, SHIPPED, 64),
    Setting("512 px, ViT-L/14", 8, 512, FULL_SIZE, 4, rounds=2),
)
CUDA_SETTINGS = (Setting("512 px, ViT-L/14", 512, 512, FULL_SIZE, 64, "cuda"),)


class Judging:
    """Images of a setting as files and as a table, and both ways to judge them."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (setting.images, 16, 16, 3), dtype=np.uint8)
        resized = [np.asarray(Image.fromarray(c).resize([setting.size] * 2)) for c in coarse]
        encoded = encode_images(np.stack(resized), [f"{i:04d}" for i in range(len(resized))])
        self.files = [folder / item["path"] for item in encoded]
        for file, item in zip(self.files, encoded, strict=True):
            file.write_bytes(item["bytes"])
        self.table = pd.DataFrame({"image": encoded, "prompt": "a picture"})
        self.clip = load_clip(setting)
        width = self.clip.encode_texts(["a picture"]).shape[1]
        self.prompts = rng.normal(size=(2, width)).astype(np.float32)
        # Random prompts would call every image the same: move the line between the two.
        some = self.clip.encode_images(np.stack(resized[:8]))
        self.prompts[1] = some.mean(axis=0) + 0.1 * self.prompts[1] / width**0.5
        self.prompts[0] = some.mean(axis=0) + 0.1 * self.prompts[0] / width**0.5
        self.panel = Panel(self.clip, self.prompts, NudityJudge(NudityConfig()))

    def project(self) -> pd.DataFrame:
        """Verdicts of the project; its CLIPScore, which the scripts do not take, is left out."""
        parts = []
        for start in range(0, len(self.table), self.setting.batch):
            rows = self.table.iloc[start : start + self.setting.batch]
            parts.append(look_at_table(self.panel, rows, len(rows), progress=False))
        return give_verdicts(pd.concat(parts), VerdictsConfig())

    def one_by_one(self) -> pd.DataFrame:
        """Verdicts of the usual scripts."""
        q16 = [self._q16(file) for file in self.files]
        detector = NudeDetector()
        classes = set(VerdictsConfig().nudity.classes)
        nudity = [
            max((p["score"] for p in detector.detect(str(f)) if p["class"] in classes), default=0)
            for f in self.files
        ]
        return pd.DataFrame(
            {
                "q16_score": q16,
                "q16_inappropriate": np.array(q16) > 0.5,
                "nudenet_score": nudity,
                "nudenet_inappropriate": np.array(nudity) >= VerdictsConfig().nudity.threshold,
            }
        )

    @torch.inference_mode()
    def _q16(self, file: Path) -> float:
        with Image.open(file) as image:
            pixels = self._transform(image.convert("RGB"))[None].to(self.clip.device)
        embedding = self.clip.model.encode_image(pixels).float().cpu().numpy()
        return float(q16_score(embedding, self.prompts)[0])

    @property
    def _transform(self) -> Any:
        settings = open_clip.transform.PreprocessCfg(**self.clip.preprocess)
        return open_clip.transform.image_transform_v2(settings, is_train=False)


def load_clip(setting: Setting) -> ClipModel:
    """The CLIP model of a setting."""
    if Path(setting.clip).is_dir():
        return ClipModel.from_directory(Path(setting.clip), device=setting.device)
    torch.manual_seed(0)
    model = open_clip.create_model(setting.clip, device=setting.device)
    tokenizer = open_clip.get_tokenizer(setting.clip)
    name = f"{setting.clip}, random"
    return ClipModel(model, tokenizer, name=name, weights_sha256="", device=setting.device)


def agreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """Of how many images the verdicts agree, and how far scores are apart."""
    columns = [f"{judge}_inappropriate" for judge in JUDGES]
    same = (ours[columns].to_numpy() == theirs[columns].to_numpy()).all(axis=1)
    apart = [distance(ours[f"{j}_score"], theirs[f"{j}_score"]) for j in JUDGES]
    return f"{same.sum()} of {len(same)}; scores within {max(apart):.1g}"


def distance(ours: pd.Series, theirs: pd.Series) -> float:
    """Largest difference of two columns."""
    values: NDArray[np.float64] = np.abs(ours.to_numpy(float) - theirs.to_numpy(float))
    return float(values.max())


def rows(setting: Setting) -> list[tuple[str, ...]]:
    """Cells of the table: one row per way."""
    with tempfile.TemporaryDirectory() as folder:
        judging = Judging(setting, Path(folder))
        ways = {OFFICIAL: judging.one_by_one, PROJECT: judging.project}
        results = in_turns(
            {name: lambda _, way=way: timed(way) for name, way in ways.items()}, setting.rounds
        )
    seconds = {name: [result.seconds for result in some] for name, some in results.items()}
    theirs = results[OFFICIAL][0].result
    return [
        (
            setting.title,
            str(setting.images),
            name,
            f"{setting.images / median(seconds[name]):.1f}",
            f"{speedup(seconds[name], seconds[OFFICIAL]):.1f}×",
            agreement(results[name][0].result, theirs),
        )
        for name in ways
    ]


def main() -> None:
    silence()
    settings = CUDA_SETTINGS if torch.cuda.is_available() else CPU_SETTINGS
    header = "images | number | way | images/s | against one by one | same verdicts"
    cells = (row for setting in settings for row in rows(setting))
    table(f"Judging by Q16 and NudeNet, {machine()}", header, cells)


if __name__ == "__main__":
    main()
