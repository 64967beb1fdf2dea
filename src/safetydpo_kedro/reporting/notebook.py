"""The little that notebooks need beside the plotting functions of this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.reporting.grids import Blur

if TYPE_CHECKING:
    from torch import Tensor


def quiet() -> None:
    """Show neither progress bars nor messages below a warning for the rest of the session."""
    # A bar that is never shown is no reason to ask for widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from diffusers.utils import logging as diffusers_logging
    from IPython import get_ipython
    from IPython.core.formatters import PlainTextFormatter
    from transformers.utils import logging as transformers_logging

    logging.disable(logging.INFO)
    diffusers_logging.set_verbosity_error()  # it warns of LoRAs that leave text encoders alone
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    shell = get_ipython()
    if shell is None:
        return

    def print_plainly(_: object) -> None:
        formatter = PlainTextFormatter(parent=shell.display_formatter)
        shell.display_formatter.formatters["text/plain"] = formatter

    # Kedro's extension, loaded before or after, has rich print an empty line above every table.
    shell.events.register("pre_run_cell", print_plainly)


def for_unjudged(blur: Blur) -> Blur:
    """What a switch means for images that no judge has seen: ``flagged`` blurs them all.

    Example:
        >>> for_unjudged("flagged"), for_unjudged("none")
        ('all', 'none')
    """
    return "none" if blur == "none" else "all"


def mean_weights(weights: Mapping[str, Tensor], experts: tuple[str, ...]) -> pd.DataFrame:
    """Mean weight of each expert in each layer, as ``share_heatmap`` reads it.

    Args:
        weights: layer → ``[E, units]``.
        experts: names along the first axis.

    Returns:
        One row per layer and expert: ``layer, expert, weight``.
    """
    rows = [
        {"layer": layer, "expert": expert, "weight": float(weight)}
        for layer, tensor in weights.items()
        for expert, weight in zip(experts, tensor.float().mean(1), strict=True)
    ]
    return pd.DataFrame(rows)
