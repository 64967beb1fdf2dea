"""Unified Concept Editing: cross-attentions read one text as another, in closed form.

Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024 (arXiv 2308.14761),
section 4. Keys and values of the cross-attentions are linear in the text's token embeddings, so
the weights that answer to a concept as the old ones did to its anchor solve a least-squares
problem. Nothing is trained, and it takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safetydpo_kedro.baselines.config import UceConfig
from safetydpo_kedro.baselines.families import require_stable_diffusion
from safetydpo_kedro.diffusion.model import DiffusionModel

EDITED = ("attn2.to_k", "attn2.to_v")


def uce_update(
    weight: Tensor,
    concepts: Tensor,
    targets: Tensor,
    preserved: Tensor,
    *,
    erase_scale: float,
    preserve_scale: float,
    regularization: float,
) -> Tensor:
    """New weights of one projection, equation 7, in float64.

    They minimise ``e Σ_i ‖W c_i - v*_i‖² + p Σ_j ‖W c_j - W_old c_j‖² + λ ‖W - W_old‖²``::

        W = (e Σ v*_i c_iᵀ + p Σ W_old c_j c_jᵀ + λ W_old) (e Σ c_i c_iᵀ + p Σ c_j c_jᵀ + λ I)⁻¹

    which is computed as ``W_old`` and a change that is exactly zero where nothing is to change.

    Args:
        weight: W_old, ``[out, in]`` of any floating type.
        concepts: embeddings c_i that are edited, ``[n, in]``.
        targets: their wanted outputs v*_i, ``[n, out]``.
        preserved: embeddings c_j whose outputs are to stay, ``[m, in]``, m may be 0.
        erase_scale: e.
        preserve_scale: p.
        regularization: λ > 0.

    Returns:
        W, float64 ``[out, in]``.
    """
    old, c, v, kept = (tensor.double() for tensor in (weight, concepts, targets, preserved))
    identity = torch.eye(old.shape[1], dtype=torch.float64, device=old.device)
    gram = erase_scale * c.T @ c + preserve_scale * kept.T @ kept + regularization * identity
    change = erase_scale * (v - c @ old.T).T @ c
    return old + torch.cholesky_solve(change.T, torch.linalg.cholesky(gram)).T


def edit_uce(
    model: DiffusionModel,
    concepts: Sequence[str],
    anchors: Sequence[str],
    preserved: Sequence[str],
    config: UceConfig,
) -> dict[str, Tensor]:
    """Let all cross-attentions read each concept as its anchor. The model is left as it was.

    Args:
        model: of the Stable Diffusion family.
        concepts: texts to erase.
        anchors: one text per concept, or one for all of them, such as the empty one.
        preserved: texts that are to be read as before; may be none.
        config: weights of the three aims.

    Returns:
        Edited weights, named as in the denoiser's ``state_dict()``, on the CPU and in the
        precision of the model.

    Raises:
        ValueError: the model is of another family, or concepts and anchors do not match.
    """
    require_stable_diffusion(model, "uce")
    if not concepts or len(anchors) not in (1, len(concepts)):
        raise ValueError(
            f"UCE needs at least one concept, and one anchor for each or one for all: "
            f"{len(concepts)} concepts, {len(anchors)} anchors"
        )
    anchors = list(anchors) * (len(concepts) if len(anchors) == 1 else 1)
    c, anchored = _paired_tokens(model, concepts, anchors, config)
    kept, _ = _paired_tokens(model, preserved, preserved, config) if preserved else (c[:0], c[:0])
    scales = config.model_dump(exclude={"tokens"})
    model.place_unet()
    edited = {}
    for name, module in model.unet.named_modules():
        if name.endswith(EDITED):
            targets = anchored.double() @ module.weight.double().T
            updated = uce_update(module.weight, c, targets, kept, **scales)
            edited[f"{name}.weight"] = updated.to("cpu", model.dtype)
    return edited


def _paired_tokens(
    model: DiffusionModel, texts: Sequence[str], anchors: Sequence[str], config: UceConfig
) -> tuple[Tensor, Tensor]:
    """Token embeddings of texts, and of the tokens of their anchors that they shall be read as.

    Returns:
        Two of ``[n, width]`` on the model's device.
    """
    (own, own_last), (other, other_last) = _embedded(model, texts), _embedded(model, anchors)
    read, wanted = [], []
    for i, (a, b) in enumerate(zip(own_last, other_last, strict=True)):
        if config.tokens == "all":
            a = b = 1  # the first token is the same in all texts, and so is its embedding
        count = 1 if config.tokens == "last" else own.shape[1] - max(a, b)
        read.append(own[i, a : a + count])
        wanted.append(other[i, b : b + count])
    return torch.cat(read), torch.cat(wanted)


def _embedded(model: DiffusionModel, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Embeddings ``[N, tokens, width]``, and the place of each text's last word.

    Of the empty text that is 0, the start of the text, as in the authors' code.
    """
    tokenizer = model.pipeline.tokenizer
    ids = tokenizer(list(texts), truncation=True, max_length=tokenizer.model_max_length).input_ids
    # Behind the last word stands the end of the text alone.
    return model.encode_prompts(texts)["embedding"], [len(row) - 2 for row in ids]
