"""Prompt pairs written by a language model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from safetydpo_kedro.parameters import LanguageModelWriterParameters
from safetydpo_kedro.prompts.chat import FILTERED, ChatModel, ChatReply, ChatRequest
from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.journal import ReplyJournal
from safetydpo_kedro.prompts.replies import ParsedReply, Reason, Rejected, parse_prompts
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.templates import PromptTemplates
from safetydpo_kedro.prompts.writer import PromptPair, RejectedPrompt, image_seed

logger = logging.getLogger(__name__)

SHOWN_CONCEPTS = 10


@dataclass
class _Draft:
    """What there is about one concept so far: unsafe prompt → safe counterpart."""

    category: str
    concept: str
    pairs: dict[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.category}/{self.concept}"

    def finished(self) -> int:
        return sum(safe is not None for safe in self.pairs.values())


class LanguageModelWriter:
    """Asks for unsafe prompts of a concept, then for the safe counterpart of each.

    All concepts are asked about together, in rounds: a round holds every request that can be
    made with what is known, and the next one asks again for what lacks. What is made of the
    replies of a round depends on their content only, never on the order in which they came.

    Args:
        model: the language model.
        templates: what it is asked.
        journal: where its replies are kept.
        arguments: see :class:`safetydpo_kedro.parameters.LanguageModelWriterParameters`.
    """

    source = "language_model"

    def __init__(
        self,
        model: ChatModel,
        templates: PromptTemplates,
        journal: ReplyJournal,
        **arguments: Any,
    ) -> None:
        self._model = model
        self._templates = templates
        self._journal = journal
        self._parameters = LanguageModelWriterParameters.model_validate(arguments)

    def write(
        self, concepts: Sequence[tuple[str, str]], pairs_per_concept: int, seed: int
    ) -> Iterator[PromptPair | RejectedPrompt]:
        """See :class:`safetydpo_kedro.prompts.writer.PromptWriter`.

        Raises:
            ValueError: no pair at all came out.
            ChatError: the model does not answer; what it has answered is in the journal.
        """
        drafts = []
        for category, concept in dict.fromkeys(concepts):
            if is_excluded(concept, category=category):
                yield RejectedPrompt(category, concept, None, "excluded", self.source)
            else:
                drafts.append(_Draft(category, concept))
        reasons: dict[Reason, int] = {}
        for rejected in self._fill(drafts, pairs_per_concept, seed):
            reasons[rejected.reason] = reasons.get(rejected.reason, 0) + 1
            yield rejected
        self._report(drafts, pairs_per_concept, reasons)
        for draft in drafts:
            for unsafe, safe in draft.pairs.items():
                if safe is not None:
                    yield PromptPair(draft.category, draft.concept, unsafe, safe, group=unsafe)

    def _fill(self, drafts: list[_Draft], wanted: int, seed: int) -> Iterator[RejectedPrompt]:
        """Both kinds of rounds."""
        rounds = self._parameters.max_rounds
        for number in range(rounds):
            task = f"unsafe prompts, round {number + 1} of at most {rounds}"
            asked = [
                (draft, request)
                for draft in drafts
                for request in self._unsafe_requests(draft, wanted, number, seed)
            ]
            for draft, reply in self._ask(asked, task):
                yield from self._take_unsafe(draft, reply, wanted)
        for number in range(rounds):
            task = f"safe counterparts, round {number + 1} of at most {rounds}"
            wanting = [
                ((draft, unsafe), self._counterpart_request(draft, unsafe, number, seed))
                for draft in drafts
                for unsafe, safe in draft.pairs.items()
                if safe is None
            ]
            for (draft, unsafe), reply in self._ask(wanting, task):
                yield from self._take_counterpart(draft, unsafe, reply)
        for draft in drafts:
            for unsafe, safe in draft.pairs.items():
                if safe is None:
                    yield self._rejected(draft, Rejected(unsafe, "no_counterpart"))

    def _ask(self, asked: list[tuple[Any, ChatRequest]], task: str) -> list[tuple[Any, ChatReply]]:
        """Each subject with the reply to its request."""
        if not asked:
            return []
        replies = self._journal.complete(self._model, [request for _, request in asked], task)
        return [(subject, reply) for (subject, _), reply in zip(asked, replies, strict=True)]

    def _unsafe_requests(
        self, draft: _Draft, wanted: int, number: int, seed: int
    ) -> Iterator[ChatRequest]:
        """As many requests as are needed for what the concept lacks."""
        known = list(draft.pairs)[-self._parameters.known_shown :]
        size = self._parameters.prompts_per_request
        for index, start in enumerate(range(len(draft.pairs), wanted, size)):
            messages = self._templates.unsafe_prompts.messages(
                category=_words(draft.category),
                concept=draft.concept,
                count=min(size, wanted - start),
                known=listing(known),
            )
            name = f"unsafe/{draft.name}/{number}/{index}"
            yield ChatRequest(
                messages,
                image_seed(seed, name),
                (number, index),
                draft.category,
                (draft.concept,),
            )

    def _take_unsafe(
        self, draft: _Draft, reply: ChatReply, wanted: int
    ) -> Iterator[RejectedPrompt]:
        parsed = self._parse(reply, known=list(draft.pairs))
        for prompt in parsed.prompts:
            if is_excluded(prompt, draft.concept, category=draft.category):
                yield self._rejected(draft, Rejected(None, "excluded"))
            elif len(draft.pairs) < wanted:
                draft.pairs[prompt] = None
        for rejected in parsed.rejected:
            yield self._rejected(draft, rejected)

    def _counterpart_request(
        self, draft: _Draft, unsafe: str, number: int, seed: int
    ) -> ChatRequest:
        messages = self._templates.safe_counterpart.messages(
            category=_words(draft.category), concept=draft.concept, prompt=unsafe
        )
        return ChatRequest(
            messages,
            image_seed(seed, f"safe/{draft.name}/{unsafe}/{number}"),
            (number,),
            draft.category,
            (draft.concept, unsafe),
        )

    def _take_counterpart(
        self, draft: _Draft, unsafe: str, reply: ChatReply
    ) -> Iterator[RejectedPrompt]:
        """The first usable prompt of the reply."""
        parsed = self._parse(reply, unsafe=unsafe)
        for safe in parsed.prompts:
            if is_excluded(safe, unsafe, draft.concept, category=draft.category):
                yield self._rejected(draft, Rejected(None, "excluded"))
            elif is_copy(safe, unsafe):
                yield self._rejected(draft, Rejected(safe, "copy"))
            else:
                draft.pairs[unsafe] = safe
                break
        for rejected in parsed.rejected:
            yield self._rejected(draft, rejected)

    def _parse(self, reply: ChatReply, known: Sequence[str] = (), unsafe: str = "") -> ParsedReply:
        if reply.finish_reason == FILTERED:
            return ParsedReply([], [Rejected(None, "refusal")])
        # A repeated unsafe prompt is a copy, and not an echo of what was asked.
        asked = [message.content.replace(unsafe or "\0", " ") for message in reply.request.messages]
        return parse_prompts(reply.text, self._parameters, known=known, asked=asked)

    def _rejected(self, draft: _Draft, rejected: Rejected) -> RejectedPrompt:
        return RejectedPrompt(
            draft.category, draft.concept, rejected.text, rejected.reason, self.source
        )

    def _report(self, drafts: list[_Draft], wanted: int, reasons: dict[Reason, int]) -> None:
        """Say which concepts lack pairs.

        Raises:
            ValueError: all of them lack all.
        """
        short = [draft for draft in drafts if draft.finished() < wanted]
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none"
        if drafts and not any(draft.finished() for draft in drafts):
            raise ValueError(
                f"the language model wrote no usable pair for any of {len(drafts)} concepts "
                f"(rejected: {why}); look at the replies in {self._journal.path}, then change "
                f"the model, the prompt templates, or the arguments of the writer"
            )
        if short:
            shown = ", ".join(f"{d.name} ({d.finished()})" for d in short[:SHOWN_CONCEPTS])
            more = f" and {len(short) - SHOWN_CONCEPTS} more" if len(short) > SHOWN_CONCEPTS else ""
            logger.warning(
                "%d of %d concepts have fewer than %d pairs: %s%s (rejected: %s)",
                *(len(short), len(drafts), wanted, shown, more, why),
            )


def is_copy(safe: str, unsafe: str) -> bool:
    """Whether a counterpart says all that the unsafe prompt says.

    Example:
        >>> is_copy("A knife, on a table!", "a knife on a table"), is_copy("a spoon", "a knife")
        (True, False)
    """
    return f" {normalise(unsafe)} " in f" {normalise(safe)} "


def listing(texts: Sequence[str]) -> str:
    """Texts as they stand in a message."""
    return "; ".join(texts) or "none"


def _words(category: str) -> str:
    return category.replace("_", " ")
