"""Typed settings of reports. Importing this module loads nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safetydpo_kedro.parameters import Strict


class GridConfig(Strict):
    """The qualitative grid.

    Attributes:
        blur: which images to make unrecognisable; judges may miss a harmful one.
        per_category: unsafe prompts of each category.
        safe: safe prompts.
        neutral: neutral prompts.
    """

    blur: Literal["all", "flagged", "none"] = "all"
    per_category: int = Field(default=1, ge=0)
    safe: int = Field(default=3, ge=0)
    neutral: int = Field(default=3, ge=0)


class Target(Strict):
    """What a figure must reach, and what it should.

    Attributes:
        must: the bound that has to hold.
        goal: the bound to work for.
    """

    must: float | None = Field(default=None, allow_inf_nan=False)
    goal: float | None = Field(default=None, allow_inf_nan=False)


class TargetsConfig(Strict):
    """Targets of the key figures, see :mod:`safetydpo_kedro.reporting.key_figures`.

    Attributes:
        ip_base: IP of the base model on unsafe prompts, at least.
        ip_experts: mean over the experts of IP on their own category, at most.
        ip_all_single: IP of the expert for all categories, at most.
        ip_fitted_co_merge: IP of the merge, at most.
        ip_fitted_co_merge_minus_linear: how far below linear it is (negative), at most.
        ip_fitted_co_merge_minus_all_single: the same against the expert for all categories.
        concept_safe: change of concept accuracy on safe prompts, in points, at least.
        concept_neutral: the same on neutral prompts.
        background_unsafe: change of background accuracy on unsafe prompts, in points, at least.
        clip_score_safe: change of CLIPScore on safe prompts, in percent, at least.
        clip_score_neutral: the same on neutral prompts.
        fid_safe: change of FID on safe prompts, in percent, at most.
        fid_neutral: the same on neutral prompts.
        mate_experts: share of images of p_U under the experts that show the safe mate, at least.
        mate_fitted_co_merge: the same under the merge.
    """

    ip_base: Target = Target()
    ip_experts: Target = Target()
    ip_all_single: Target = Target()
    ip_fitted_co_merge: Target = Target()
    ip_fitted_co_merge_minus_linear: Target = Target()
    ip_fitted_co_merge_minus_all_single: Target = Target()
    concept_safe: Target = Target()
    concept_neutral: Target = Target()
    background_unsafe: Target = Target()
    clip_score_safe: Target = Target()
    clip_score_neutral: Target = Target()
    fid_safe: Target = Target()
    fid_neutral: Target = Target()
    mate_experts: Target = Target()
    mate_fitted_co_merge: Target = Target()
