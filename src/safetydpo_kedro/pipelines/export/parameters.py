"""Typed parameters of ``export``."""

from __future__ import annotations

from huggingface_hub.utils import HFValidationError, validate_repo_id
from pydantic import Field, field_validator

from safetydpo_kedro.parameters import Strict


class CardParameters(Strict):
    """What no table of the evaluation can tell the model card."""

    name: str = Field(min_length=1, description="title of the card")
    base_model: str | None = Field(
        None,
        description="id of the base model on the Hugging Face hub; null: it is not there, and the "
        "card identifies it by the hash of its denoiser",
    )
    license: str | None = Field(
        None,
        description="of the adapter, as the hub spells it, such as apache-2.0 or "
        "creativeml-openrail-m; null: the card says that none is stated",
    )

    @field_validator("base_model")
    @classmethod
    def _is_an_id(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                validate_repo_id(value)
            except HFValidationError as error:
                raise ValueError(
                    f"no id on the hub: {error}; a model that is not there has none: null"
                ) from error
        return value
