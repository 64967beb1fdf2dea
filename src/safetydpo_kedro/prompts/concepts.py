"""More concepts of each category, proposed by a language model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import pandas as pd

from safetydpo_kedro.parameters import ConceptParameters
from safetydpo_kedro.prompts.chat import FILTERED, ChatModel, ChatReply, ChatRequest
from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.journal import ReplyJournal
from safetydpo_kedro.prompts.replies import parse_prompts
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.templates import PromptTemplates
from safetydpo_kedro.prompts.writer import image_seed

logger = logging.getLogger(__name__)

COLUMNS = ["category", "concept"]


def expand(
    concepts: pd.DataFrame,
    model: ChatModel,
    templates: PromptTemplates,
    journal: ReplyJournal,
    parameters: ConceptParameters,
) -> pd.DataFrame:
    """Have a model propose concepts until each category has ``per_category`` of them.

    Args:
        concepts: ``category, concept``; kept as they are, in their order.
        model: asked for proposals, in rounds over all categories at once.
        templates: of which ``concepts`` is used.
        journal: where its replies are kept.
        parameters: how many concepts, and how they are asked for.

    Returns:
        ``category, concept``: the given ones, then the proposals by category. Spelling and a
        plural do not make a concept another one.
    """
    wanted = parameters.per_category or 0
    names = {c: list(rows["concept"]) for c, rows in concepts.groupby("category", sort=False)}
    given = {category: len(own) for category, own in names.items()}
    for number in range(parameters.max_rounds):
        requests = [
            request
            for category, own in names.items()
            for request in _requests(category, own, templates, parameters, number)
        ]
        task = f"concepts, round {number + 1} of at most {parameters.max_rounds}"
        for reply in journal.complete(model, requests, task) if requests else ():
            _take(reply, names, wanted, parameters)
    short = {category: len(own) for category, own in names.items() if len(own) < wanted}
    if short:
        logger.warning("fewer than %d concepts in %d categories: %s", wanted, len(short), short)
    proposed = [(c, name) for c, own in names.items() for name in own[given[c] :]]
    added = pd.DataFrame(proposed, columns=COLUMNS)
    return pd.concat([concepts[COLUMNS], added], ignore_index=True)


def check_categories(concepts: pd.DataFrame, known: Collection[str]) -> None:
    """Refuse concepts of a category that no expert is trained on.

    Training would not forget them, and the terms that preserve would protect them.

    Raises:
        ValueError: there are such concepts; the message names them and the known categories.
    """
    unknown = concepts[~concepts["category"].isin(list(known))]
    if len(unknown):
        named = unknown.groupby("category", sort=False)["concept"].first().to_dict()
        raise ValueError(
            f"concepts: {len(unknown)} rows are of categories without an expert, the first of "
            f"each is {named}. Correct them to one of {', '.join(known)}, or add the category to "
            f"CATEGORIES in settings.py"
        )


def without_excluded(concepts: pd.DataFrame) -> pd.DataFrame:
    """The concepts that the exclusion rule does not hit; how many it does is logged."""
    rows = concepts[COLUMNS].itertuples(index=False)
    kept = [not is_excluded(row.concept, category=row.category) for row in rows]
    if not all(kept):
        logger.warning("%d concepts are excluded by rule", kept.count(False))
    return concepts[kept].reset_index(drop=True)


def concept_key(concept: str) -> str:
    """What is the same for all spellings of a concept.

    Example:
        >>> concept_key("Counterfeit-Bills") == concept_key("counterfeit bill")
        True
    """
    return " ".join(_singular(word) for word in normalise(concept).split())


def _requests(
    category: str,
    own: list[str],
    templates: PromptTemplates,
    parameters: ConceptParameters,
    number: int,
) -> Iterator[ChatRequest]:
    missing = (parameters.per_category or 0) - len(own)
    if missing > 0:
        messages = templates.concepts.messages(
            category=category.replace("_", " "),
            count=min(missing, parameters.prompts_per_request),
            known="; ".join(own),
        )
        seed = image_seed(parameters.seed, f"concepts/{category}/{number}")
        yield ChatRequest(messages, seed, (number,), category)


def _take(
    reply: ChatReply, names: dict[str, list[str]], wanted: int, parameters: ConceptParameters
) -> None:
    """Add the new concepts of one reply to those of its category."""
    category = reply.request.category or ""
    own = names[category]
    keys = {concept_key(name) for name in own}
    text = "" if reply.finish_reason == FILTERED else reply.text
    for name in parse_prompts(text, parameters).prompts:
        key = concept_key(name)
        is_new = key not in keys and not is_excluded(name, category=category)
        if is_new and len(own) < wanted:
            own.append(name)
            keys.add(key)


def _singular(word: str) -> str:
    """Enough of English plurals for comparing two spellings of one concept."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
