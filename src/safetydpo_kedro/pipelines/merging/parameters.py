"""Typed parameters of ``merging``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field, RootModel, model_validator

from safetydpo_kedro.validation import Explained, validate_nested

if TYPE_CHECKING:
    from safetydpo_kedro.merging.calibration import CalibrationConfig
    from safetydpo_kedro.merging.fitting import FittingConfig


class ProfileParameters(Explained):
    """The activation profile.

    Attributes:
        shard_size: calibration inputs of a shard, the unit of resume; best a multiple of the
            batch.
        calibration: settings of
            :class:`~safetydpo_kedro.merging.calibration.CalibrationConfig`, which are written
            beside ``shard_size``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    shard_size: int = Field(default=256, ge=1)

    @property
    def calibration(self) -> CalibrationConfig:
        """The calibration inputs."""
        # Imported here, because merging needs torch, and this module is imported without it.
        from safetydpo_kedro.merging.calibration import CalibrationConfig

        return validate_nested(CalibrationConfig, self.model_extra, "settings of the calibration")

    @model_validator(mode="after")
    def _known(self) -> ProfileParameters:
        _ = self.calibration
        return self


class FittingParameters(Explained):
    """Fitted weights of the merge.

    Attributes:
        inputs: noised unsafe images, split evenly over the categories; as many safe and half as
            many neutral ones.
        config: settings of :class:`~safetydpo_kedro.merging.fitting.FittingConfig`, which are
            written beside ``inputs``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    inputs: int = Field(default=448, ge=1)

    @property
    def config(self) -> FittingConfig:
        """How the weights are fitted."""
        # Imported here, because fitting needs torch, and this module is imported without it.
        from safetydpo_kedro.merging.fitting import FittingConfig

        return validate_nested(FittingConfig, self.model_extra, "settings of the fit")

    @model_validator(mode="after")
    def _known(self) -> FittingParameters:
        _ = self.config
        return self


class StrategyParameters(RootModel[dict[str, Any]]):
    """Settings of one merge strategy; the strategy itself says which it knows."""

    model_config = ConfigDict(frozen=True)
    strategy: ClassVar[str]

    @model_validator(mode="after")
    def _known(self) -> StrategyParameters:
        # Imported here, because strategies need torch, and this module is imported without it.
        from safetydpo_kedro.merging import parse_config

        parse_config(self.strategy, self.root)
        return self


class LinearParameters(StrategyParameters):
    """Settings of ``linear``."""

    strategy = "linear"


class CoMergeParameters(StrategyParameters):
    """Settings of ``co_merge``."""

    strategy = "co_merge"


class FittedCoMergeParameters(StrategyParameters):
    """Settings of ``fitted_co_merge``."""

    strategy = "fitted_co_merge"
