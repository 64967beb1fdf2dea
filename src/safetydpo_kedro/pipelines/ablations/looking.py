"""What an expert, or a merge, does: it draws the questions, and the judges look at the images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.metrics.config import CheckerConfig, JudgesConfig, VerdictsConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.evaluation.drawing import draw_images
from safetydpo_kedro.pipelines.evaluation.judging import plan_judging

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.clip import ClipModel
    from safetydpo_kedro.metrics.judging import Panel

    Look = Callable[[LoraAdapter | None], pd.DataFrame]


def make_look(
    *,
    base_model: DiffusionModel,
    questions: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
) -> Look:
    """A function that draws the questions with an adapter and judges the images.

    The judges are loaded when it is called first, and serve all calls.

    Args:
        base_model: the model.
        questions: prompts to draw.
        judge_clip: embeds images.
        q16_prompts: prompt embeddings of Q16.
        judges: of the images.
        verdicts: what counts as inappropriate.
        checker: finds concepts.
        drawing: how images are drawn.

    Returns:
        Adapter, or None for the base model alone → judged images, one row for each question.
    """

    @cache
    def panel() -> Panel:
        from safetydpo_kedro.metrics.judging import make_panel

        return make_panel(
            judge_clip=judge_clip, q16_prompts=q16_prompts, judges=judges, checker=checker
        )

    def look(adapter: LoraAdapter | None) -> pd.DataFrame:
        from safetydpo_kedro.metrics.verdicts import give_verdicts

        drawn = draw_images(base_model, questions, drawing, False, adapter, variant="trial")
        images = pd.concat([shard() for shard in drawn.values()], ignore_index=True)
        judged = plan_judging(panel(), images, judges.batch_rows)
        scores = pd.concat([shard() for shard in judged.values()], ignore_index=True)
        return give_verdicts(scores, verdicts.without_classifier).drop(columns="variant")

    return look
