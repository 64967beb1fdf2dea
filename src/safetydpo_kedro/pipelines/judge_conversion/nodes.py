"""Nodes of ``judge_conversion``; each reads one published pickle, and runs nothing in it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
else:  # Kedro resolves the annotations when it starts, which must not load torch
    Tensor = object

logger = logging.getLogger(__name__)

Q16_NODE, INCEPTION_NODE = "convert_q16_prompts", "convert_inception"


def convert_q16_prompts(pickle: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The two prompts of Q16, and a record of where they come from.

    Args:
        pickle: ``prompts.p`` of ml-research/Q16.

    Returns:
        ``prompts``, float32 ``[2, D]``, and the record: ``source``, ``pickle_sha256``, ``shape``
        and ``prompts_sha256``, under which ``judges.json`` names the prompts of an evaluation.

    Raises:
        ValueError: the file is not there, or is not that pickle.
    """
    import torch

    from safetydpo_kedro.metrics.q16_conversion import SOURCE, read_q16_pickle

    _require(pickle, SOURCE, INCEPTION_NODE)
    prompts, sha256 = read_q16_pickle(pickle)
    logger.info("%s: Q16 prompts %s, SHA-256 %s", pickle, list(prompts.shape), sha256)
    record = {
        "source": SOURCE,
        "pickle_sha256": sha256,
        "shape": list(prompts.shape),
        "prompts_sha256": hashlib.sha256(prompts.tobytes()).hexdigest(),
    }
    return {"prompts": torch.from_numpy(prompts)}, record


def convert_inception(pickle: Path) -> dict[str, Tensor]:
    """Tensors of the Inception of FID.

    Args:
        pickle: ``.pth`` file of torch-fidelity.

    Raises:
        ValueError: the file is not there, or does not hold that network alone.
    """
    from safetydpo_kedro.metrics.inception import SOURCE, convert_inception

    _require(pickle, SOURCE, Q16_NODE)
    return convert_inception(pickle)


def _require(path: Path, source: str, other: str) -> None:
    """Refuse to go on without a file, and say how to go on without it."""
    if not path.is_file():
        raise ValueError(
            f"no file at '{path}'; put {source} there, or convert only what you have: "
            f"`kedro run --pipelines judge_conversion --nodes {other}`. Name the environment of "
            f"your model (`--env sd15`): without one, this replaces the judge of the pictograms"
        )
