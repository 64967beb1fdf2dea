"""Typed parameters of ``prompt_import``."""

from __future__ import annotations

from pydantic import Field

from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.prompts.importers.prompt_list import PromptListParameters


class CommonParameters(Strict):
    """What holds for all sources."""

    seed: int = Field(0, description="of the image seeds that a file does not have")
    category_aliases: dict[str, str] = Field(
        default_factory=dict, description="other spelling → category"
    )


class CoproParameters(Strict):
    """Lists in the JSON file of CoPro."""

    sections: tuple[str, ...] = Field(("ID_train_data",), description="those that become pairs")
    test_sections: tuple[str, ...] = Field((), description="those that become a benchmark")


class LeakCheckedParameters(PromptListParameters):
    """A list of test prompts that may repeat training prompts."""

    remove_leaks: bool = Field(False, description="leave out prompts that occur in training")


class CocoParameters(PromptListParameters):
    """A list of captions, or the annotations of COCO."""

    concept: str = Field("caption", min_length=1)
