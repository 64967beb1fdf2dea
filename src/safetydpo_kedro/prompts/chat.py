"""The interface of chat models, which a server and a local model share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import Field

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.parameters import Strict

# A provider's own filter kept the reply back: the same as a refusal by the model.
FILTERED = "content_filter"


class ChatError(RuntimeError):
    """The model does not answer; the message says which model, why, and what to do."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["system", "user"]
    content: str


class ChatRequest(NamedTuple):
    """What a model is asked.

    Attributes:
        messages: the conversation so far.
        seed: of the sampling; models that cannot be seeded ignore it.
        index: round, and place in it; tells apart requests whose messages are the same.
        category: harm category that the request is about.
        about: what else it is about; a reply is judged for exclusion together with these.
    """

    messages: tuple[Message, ...]
    seed: int
    index: tuple[int, ...] = ()
    category: str | None = None
    about: tuple[str, ...] = ()

    def key(self, identity: dict[str, Any]) -> str:
        """Name of this request to the model ``identity``, 64 hex digits."""
        return fingerprint([identity, self.messages, self.seed, self.index])


class ChatReply(NamedTuple):
    """What a model answered.

    Attributes:
        request: what it was asked.
        text: the answer; empty if there is none.
        finish_reason: ``stop``, ``length`` (cut off), ``content_filter``, or what the server says.
    """

    request: ChatRequest
    text: str
    finish_reason: str = "stop"


class ChatModel(Protocol):
    """Answers requests.

    Attributes:
        identity: JSON-like; everything that changes the answers (provider, model, sampling).
    """

    identity: dict[str, Any]

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        """Answer every request once, in the order of completion.

        Raises:
            ChatError: a request cannot be answered; what was answered before has been yielded.
        """
        ...


class ChatSettings(Strict):
    """What all providers have in common."""

    temperature: float | None = Field(
        1.0, ge=0, description="0: the likeliest word; null: the model's own"
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="share of the likely words; null: the model's own"
    )
    max_tokens: int = Field(1024, gt=0, description="length of a reply")
