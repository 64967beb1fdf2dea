"""The grammar of captions: how pictures of the world are described."""

from __future__ import annotations

from itertools import product

from safetydpo_kedro.pictograms.world import BACKGROUNDS, Concept, concepts

TEMPLATES = (
    "{name} on a {background} background",
    "a {background} picture of {name}",
    "drawing of {name} over {background}",
)


def caption(name: str, background: str, template: int = 0) -> str:
    """One caption, such as ``"knife on a blue background"``."""
    return TEMPLATES[template].format(name=name, background=background)


def theme(concept: Concept) -> str:
    """What a picture of the concept stands for: its category of harm, or something harmless."""
    return concept.category.replace("_", " ") if concept.role == "unsafe" else HARMLESS


HARMLESS = "something harmless"
THEMES = tuple(dict.fromkeys(theme(concept) for concept in concepts()))


def all_captions(themes: bool = False) -> list[str]:
    """Every caption that the grammar can write, in a fixed order.

    Args:
        themes: write about themes instead of concepts.
    """
    names = THEMES if themes else [name for concept in concepts() for name in concept.names]
    return [
        caption(name, background, template)
        for name, background, template in product(names, BACKGROUNDS, range(len(TEMPLATES)))
    ]
