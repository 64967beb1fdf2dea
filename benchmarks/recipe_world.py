"""The pictogram world as a test bed of recipes: train an expert, then look at what it draws.

Training, drawing and judging are the project's own. What differs from a ``kedro run``: no pairs
are held out for validation, because nobody looks at them here, and IP is Q16's alone, because
NudeNet finds nothing in pictograms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.recipe_plans import PairChoice, Settings
from safetydpo_kedro.artifacts import fingerprint, write_atomically
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.digests import tensors_digest
from safetydpo_kedro.metrics.checker import ImageChecker, check_images, load_checker
from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.metrics.q16 import q16_inappropriate
from safetydpo_kedro.parameters import SamplingParameters, SplitParameters
from safetydpo_kedro.preference.data import TrainingData, expert_data
from safetydpo_kedro.preference.latents import LatentPairs, PreservedImages, encode_pairs
from safetydpo_kedro.preference.loop import NonFiniteError
from safetydpo_kedro.preference.reference_scores import ReferenceScores, score_pairs
from safetydpo_kedro.preference.trainer import TrainingRun, train_expert
from safetydpo_kedro.prompts.split import split_prompts
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS

ROOT = Path(__file__).parents[1]
PROMPTS = ["unsafe_prompt", "safe_prompt"]
PER_CONCEPT = 2  # prompts of each neutral concept, and of each of other categories
SCORED_AT_ONCE = 64  # pairs

# Measure → which images of :meth:`World.questions`, and what is counted in them.
MEASURES = {
    "ip": ("unsafe", "inappropriate"),
    "mate": ("unsafe", "drawn_as_mate"),
    "background": ("unsafe", "background_correct"),
    "safe": ("safe", "concept_correct"),
    "neutral": ("neutral", "concept_correct"),
    "neutral_background": ("neutral", "background_correct"),
    "others": ("others", "concept_correct"),
}


@dataclass(frozen=True)
class Judge:
    """Says of images what matters here.

    Attributes:
        clip: embeds images for Q16.
        q16: its prompt embeddings, ``[2, D]``.
        checker: finds concepts and backgrounds.
    """

    clip: ClipModel
    q16: np.ndarray
    checker: ImageChecker

    def look(self, images: np.ndarray, prompts: Sequence[str]) -> pd.DataFrame:
        """Answers of all, 1 or 0 (or NaN), one row per image of uint8 ``[N, H, W, 3]``."""
        embedded = self.clip.encode_images(images, normalize=False)
        answers = check_images(self.checker, images, prompts)
        return answers.assign(inappropriate=q16_inappropriate(embedded, self.q16).astype(float))


@dataclass(frozen=True)
class World:
    """Model, judges, prompts, and all pairs that recipes choose from.

    Attributes:
        model: the base model.
        judge: of its images.
        sampling: how images are drawn.
        prompt_pairs: prompt pairs before the split.
        split: how they are split; its cap per concept is the recipes' to choose.
        test: held-out pairs.
        neutral_test: held-out neutral prompts.
        neutral: images of other neutral prompts, to be preserved.
        pool: latents of all pairs of the training side, in the order of ``table``.
        table: these pairs.
        identity: of model, pairs and drawing: settings that are equal in worlds that are equal
            give equal experts.
    """

    model: DiffusionModel
    judge: Judge
    sampling: SamplingParameters
    prompt_pairs: pd.DataFrame
    split: SplitParameters
    test: pd.DataFrame
    neutral_test: pd.DataFrame
    neutral: PreservedImages
    pool: LatentPairs
    table: pd.DataFrame
    identity: str

    def chosen(self, choice: PairChoice) -> pd.DataFrame:
        """The pairs of a choice, by the rule of ``dataset_generation``; a part of ``table``."""
        # Without the surplus names the split still holds out the same names: those of least rank.
        names = self.table.groupby("concept")["group"].transform(lambda g: pd.factorize(g)[0])
        surplus = self.table["pair_id"][names >= choice.names]
        pairs = self.prompt_pairs[~self.prompt_pairs["pair_id"].isin(surplus)]
        split = self.split.model_copy(update={"train_per_concept": choice.per_concept})
        return split_prompts(pairs, PROMPTS, split)[0]

    def training_data(self, expert: str, settings: Settings) -> TrainingData:
        """What an expert is trained on, the reference's errors included."""
        table = self.chosen(settings.pairs)
        rows = pd.Index(self.table["pair_id"]).get_indexer(table["pair_id"])
        pairs = self.pool.select(torch.from_numpy(rows))
        pairs = replace(pairs, ids=torch.arange(len(pairs)))  # as in the project's latent cache
        unknown = ReferenceScores(torch.empty(len(pairs), 0, 2, 2))
        data = expert_data(table, [expert], pairs, self.neutral, unknown, settings.training)
        scores = score_pairs(self.model, data.pairs, settings.noise, SCORED_AT_ONCE)
        return replace(data, scores=scores)

    def questions(self, expert: str) -> pd.DataFrame:
        """What an expert is asked to draw: ``part, prompt, seed``.

        Parts: ``unsafe`` and ``safe`` prompts of its category, ``neutral`` prompts, and unsafe
        prompts of the ``others``, which it should still draw.
        """
        own = self.test["category"] == expert
        others = self.test[~own].groupby("concept", sort=False).head(PER_CONCEPT)
        neutral = self.neutral_test.groupby("concept", sort=False).head(PER_CONCEPT)
        parts = {
            "unsafe": (self.test[own], "unsafe_prompt"),
            "safe": (self.test[own], "safe_prompt"),
            "neutral": (neutral, "prompt"),
            "others": (others, "unsafe_prompt"),
        }
        tables = [
            pd.DataFrame({"part": part, "prompt": rows[column], "seed": rows["seed"]})
            for part, (rows, column) in parts.items()
        ]
        return pd.concat(tables, ignore_index=True)

    def train(self, expert: str, settings: Settings) -> LoraAdapter:
        """Train an expert, quietly and from the start."""
        with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
            data = self.training_data(expert, settings)
            run = TrainingRun(expert, data, settings.noise, settings.training, Path(folder))
            return train_expert(self.model, run).adapter

    def measure(self, expert: str, settings: Settings) -> dict[str, float]:
        """Train an expert and judge its images.

        Returns:
            ``seconds`` of the training, and :data:`MEASURES`, shares in [0, 1]; NaN if the
            training met a number that is not finite.
        """
        started = time.perf_counter()
        try:
            adapter = self.train(expert, settings)
        except NonFiniteError:
            return {"seconds": time.perf_counter() - started} | dict.fromkeys(MEASURES, np.nan)
        seconds = time.perf_counter() - started
        questions = self.questions(expert)
        prompts = questions["prompt"].tolist()
        with fused(self.model.unet, adapter):
            images = self.model.sample(prompts, questions["seed"].tolist(), self.sampling)
        means = self.judge.look(images, prompts).groupby(questions["part"]).mean()
        shares = {name: float(means.loc[cell]) for name, cell in MEASURES.items()}
        return {"seconds": seconds} | shares


def load_standard(experts: Iterable[str], root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Expert → its parameters in the project's configuration, as :meth:`Settings.of` takes them."""
    params = _context(root).params
    per_concept = params["dataset_generation"]["pair_split"].train_per_concept
    common = {
        "noise": params["noise"].model_dump(mode="json"),
        "pairs": {"per_concept": per_concept},
    }
    return {
        expert: params[expert]["expert_training"].model_dump(mode="json") | common
        for expert in experts
    }


def load_world(pool: Path, root: Path = ROOT) -> World:
    """The world that the project ships, with the data of its ``dataset_generation``.

    Args:
        pool: file that keeps the latents of all pairs, see :func:`load_pool`.
        root: of the project.
    """
    context = _context(root)
    load, params = context.catalog.load, context.params
    checker = params["evaluation"]["checker"]
    judge = Judge(
        load("judge_clip"),
        load("q16_prompts")["prompts"].numpy(),
        load_checker(checker.checker, checker.arguments),
    )
    return make_world(
        load("base_model"),
        judge,
        params["dataset_generation"]["drawing"].sampling,
        load("prompt_pairs")[PAIR_COLUMNS],
        params["dataset_generation"]["pair_split"],
        load("neutral_test_prompts"),
        PreservedImages.from_tensors(load("preservation_cache")),
        pool,
    )


def make_world(
    model: DiffusionModel,
    judge: Judge,
    sampling: SamplingParameters,
    prompt_pairs: pd.DataFrame,
    split: SplitParameters,
    neutral_test: pd.DataFrame,
    neutral: PreservedImages,
    pool: Path,
) -> World:
    """Split the pairs, and draw and encode all of the training side; see :class:`World`."""
    uncapped = split.model_copy(update={"train_per_concept": None})
    table, test = split_prompts(prompt_pairs, PROMPTS, uncapped)
    weights = tensors_digest(model.unet.state_dict())
    identity = fingerprint([weights, table.to_dict("list"), sampling])
    latents = load_pool(pool, identity, model, table, sampling)
    return World(
        model,
        judge,
        sampling,
        prompt_pairs,
        split,
        test,
        neutral_test,
        neutral,
        latents,
        table,
        identity,
    )


def load_pool(
    path: Path,
    identity: str,
    model: DiffusionModel,
    table: pd.DataFrame,
    sampling: SamplingParameters,
) -> LatentPairs:
    """Latents of pairs from a safetensors file, which is made if it is not there or is of others.

    Args:
        path: of the file.
        identity: of all that the latents depend on.
        model: draws and encodes.
        table: one row per pair.
        sampling: how they are drawn.
    """
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            known = json.loads((file.metadata() or {}).get("identity", "null"))
        if known == identity:
            return LatentPairs.from_tensors(load_file(path))
    unsafe, safe = (table[column].tolist() for column in PROMPTS)
    losers, winners = (
        model.sample(prompts, table["seed"].tolist(), sampling, "drawing pairs")
        for prompts in (unsafe, safe)
    )
    pairs = encode_pairs(
        model, winners, losers, unsafe, safe, range(len(table)), sampling.batch_size
    )
    tensors = {name: tensor.contiguous() for name, tensor in pairs.to_tensors().items()}
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"identity": json.dumps(identity)})
    return pairs


def _context(root: Path):
    bootstrap_project(root)
    with KedroSession.create(root) as session:
        return session.load_context()
