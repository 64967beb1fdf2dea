"""Templates of what a language model is asked, read from a file and checked."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Any

from pydantic import Field, ValidationError, model_validator

from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.prompts.chat import Message

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "unsafe_prompts": frozenset({"category", "concept", "count", "known"}),
    "safe_counterpart": frozenset({"category", "concept", "prompt"}),
    "concepts": frozenset({"category", "count", "known"}),
}


class ChatTemplate(Strict):
    """A system and a user message with ``$placeholders``."""

    system: str = Field(min_length=1)
    user: str = Field(min_length=1)

    def messages(self, **values: object) -> tuple[Message, ...]:
        """The messages with their placeholders filled in."""
        return (
            Message("system", Template(self.system).substitute(values)),
            Message("user", Template(self.user).substitute(values)),
        )

    def placeholders(self) -> set[str]:
        """Names after ``$``.

        Raises:
            ValueError: a ``$`` without a name.
        """
        names: set[str] = set()
        for text in (self.system, self.user):
            if not Template(text).is_valid():
                raise ValueError("a '$' has no name after it; write $$ for a dollar sign")
            names |= set(Template(text).get_identifiers())
        return names


class PromptTemplates(Strict):
    """All templates of a file, and its version, which the dataset card states."""

    version: str
    unsafe_prompts: ChatTemplate
    safe_counterpart: ChatTemplate
    concepts: ChatTemplate

    @model_validator(mode="after")
    def _check_placeholders(self) -> PromptTemplates:
        for name, expected in PLACEHOLDERS.items():
            found = getattr(self, name).placeholders()
            missing, unknown = sorted(expected - found), sorted(found - expected)
            if missing or unknown:
                faults = [f"lacks ${word}" for word in missing]
                faults += [f"has the unknown ${word}" for word in unknown]
                raise ValueError(
                    f"template '{name}' {', '.join(faults)}; its placeholders are "
                    f"{', '.join(f'${word}' for word in sorted(expected))}"
                )
        return self


def read_templates(content: Mapping[str, Any]) -> PromptTemplates:
    """Check the content of the file of templates.

    Raises:
        ValueError: a template or a placeholder is missing or unknown.
    """
    entries = content.items() if isinstance(content, Mapping) else [("the file", [])]
    for name, entry in entries:
        texts = entry.values() if isinstance(entry, Mapping) else [entry]
        # Not shown: a few lines of YAML may stand for billions of items.
        if any(isinstance(text, list | tuple | set | Mapping) for text in texts):
            raise ValueError(
                f"prompt_templates: {str(name)[:80]} must be a text, or have the texts `system` "
                f"and `user`; see the file that comes with the project"
            )
    try:
        return PromptTemplates.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"prompt_templates: {error}") from error
