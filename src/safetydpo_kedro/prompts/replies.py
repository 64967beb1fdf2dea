"""Lists of prompts out of what language models really answer.

Asked for a JSON array of strings, they answer with one; or fenced, cut off in the middle, as a
numbered list, between chatter, or not at all. Whatever is not taken is returned with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

from safetydpo_kedro.parameters import ReplyParameters
from safetydpo_kedro.prompts.language import may_be
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.withhold import WITHHELD

Reason = Literal[
    "excluded",  # by the rule that is always on; its text is not kept
    "refusal",  # the model, or its provider, does not want to
    "chatter",  # "Sure, here are 10 prompts:"
    "echo",  # repeats what it was asked
    "truncated",  # the reply ended within it
    "empty",
    "too_long",
    "wrong_language",
    "not_text",  # a number, say, in place of a prompt
    "duplicate",
    "copy",  # a safe counterpart that says the same as the unsafe prompt
    "no_counterpart",  # no usable safe counterpart within all rounds
]

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
# In a broken array a quote ends a string only if a comma, a bracket or the next string follows.
# Possessive quantifiers, because a line of blanks would take hours otherwise.
_STRING = re.compile(r'"((?:[^\\]|\\.)*?)"(?=\s*+,\s*+"|\s*+,?+\s*+(?:[\]}]|\Z)|\s++")', re.DOTALL)
_TRIES = 20  # places where an array may begin; each may be read to the end of the reply in vain
_WITHHELD_LINE = re.compile(rf"^{re.escape(WITHHELD)}$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•‣–]|\(?\d{1,3}[.):])\s+")
_NUMBER = re.compile(r"^\d{1,3}[.)]\s+")
_LABEL = re.compile(r"^(?:(?:un)?safe\s+)?prompt(?:\s+\d+)?\s*:\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
_REFUSAL = re.compile(
    r"^(?:i['’]?m (?:really |very |so )?(?:sorry|unable|not able)|i am (?:sorry|unable|not able)"
    r"|sorry[,.!]? (?:but|i)\b|i (?:cannot|can['’]?t|can not|won['’]?t|will not|must decline)\b"
    r"|as an ai\b|unfortunately,? i\b|i apologi[sz]e\b|my apologies\b)",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|ok|okay)[,.!]|here (?:are|is)\b|here['’]s\b"
    r"|below (?:are|is)\b|let me know\b|i hope\b|(?:please )?note(?: that\b|:)|feel free\b"
    r"|(?:the )?(?:rewritten|revised|safe) (?:prompt|version)\b[^:]{0,40}:)",
    re.IGNORECASE,
)
_AFTER_COLON = re.compile(r"^[^:]{1,100}:\s+(?P<rest>\S.*)$")


class Rejected(NamedTuple):
    """A piece of a reply that is not taken; the text of excluded ones is ``None``."""

    text: str | None
    reason: Reason


class ParsedReply(NamedTuple):
    """What a reply gave: distinct prompts in its order, and the rest with reasons."""

    prompts: list[str]
    rejected: list[Rejected]


def parse_prompts(
    reply: str,
    rules: ReplyParameters,
    *,
    known: Collection[str] = (),
    asked: Collection[str] = (),
) -> ParsedReply:
    """Take the prompts out of a reply.

    Args:
        reply: of a language model, after :func:`safetydpo_kedro.prompts.withhold.withhold`.
        rules: length and language of a prompt.
        known: prompts that are there already, in any spelling.
        asked: the messages, of which no prompt may be a part.
    """
    seen = {normalise(prompt) for prompt in known}
    questions = [normalise(message) for message in asked]
    prompts: list[str] = []
    rejected: list[Rejected] = []
    for text, fault in _candidates(_THINKING.sub("", reply)):
        reason = fault or _fault(text, rules, seen, questions)
        if reason:
            rejected.append(Rejected(None if reason == "excluded" else text, reason))
            continue
        seen.add(normalise(text))
        prompts.append(text)
    return ParsedReply(prompts, rejected)


def _fault(
    text: str, rules: ReplyParameters, seen: Collection[str], questions: Collection[str]
) -> Reason | None:
    """Why a candidate is no prompt, ``None`` if it is one."""
    plain = normalise(text)
    if WITHHELD in text:
        return "excluded"
    if not plain:
        return "empty"
    if _REFUSAL.match(text):
        return "refusal"
    if plain in seen:
        return "duplicate"
    if any(f" {plain} " in f" {question} " for question in questions) and len(plain.split()) > 3:
        return "echo"
    if len(text) > rules.max_characters:
        return "too_long"
    return None if may_be(text, rules.language) else "wrong_language"


def _candidates(reply: str) -> Iterator[tuple[str, Reason | None]]:
    """Pieces of a reply that may be prompts, with the fault of those that cannot be."""
    fenced = _FENCE.search(reply)
    body = fenced.group(1) if fenced else reply
    bare = f"[{body.strip().rstrip(',')}]"  # an array without its brackets
    items = _json_array(body) or _json_array(reply) or _json_array(bare) or _broken_array(body)
    yield from items or _lines(body)


def _json_array(text: str) -> list[tuple[str, Reason | None]] | None:
    """Items of all JSON arrays that hold strings, ``None`` if there are none."""
    decoder = json.JSONDecoder(strict=False)
    found: list[tuple[str, Reason | None]] = []
    start, failures = text.find("["), 0
    while start >= 0 and failures < _TRIES:
        try:
            value, end = decoder.raw_decode(text, start)
        except RecursionError:  # thousands of brackets: nothing that is meant
            break
        except ValueError:
            end, failures = start + 1, failures + 1
        else:
            items = _unnumbered(list(_texts(value)))
            found += items if any(fault is None for _, fault in items) else []
        start = text.find("[", end)
    return found or None


def _texts(value: Any) -> Iterator[tuple[str, Reason | None]]:
    """Strings in a JSON value; of an object, ``prompt`` or the only string."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, str):
            yield _tidy(item), None
        elif isinstance(item, dict):
            strings = [inner for inner in item.values() if isinstance(inner, str)]
            only = strings[0] if len(strings) == 1 else item.get("prompt")
            if isinstance(only, str):
                yield _tidy(only), None
            else:
                yield str(item), "not_text"
        else:
            yield str(item), "not_text"


def _unnumbered(items: list[tuple[str, Reason | None]]) -> list[tuple[str, Reason | None]]:
    """Without the numbers of ``["1. a knife", "2. a fork"]``, if every item has one."""
    if len(items) < 2 or not all(_NUMBER.match(text) for text, _ in items):
        return items
    return [(_NUMBER.sub("", text), fault) for text, fault in items]


def _broken_array(text: str) -> list[tuple[str, Reason | None]] | None:
    """Whole strings of an array that is cut off or badly punctuated."""
    text = _WITHHELD_LINE.sub(f'"{WITHHELD}",', text)
    start = re.search(r'\[\s*"', text)
    if start is None:
        return None
    pieces: list[tuple[str, Reason | None]] = []
    end = start.end() - 1
    # Where no string ends, none that begins later does: looking on would take hours.
    while (begin := text.find('"', end)) >= 0 and (match := _STRING.match(text, begin)):
        try:
            pieces.append((_tidy(json.loads(match.group(), strict=False)), None))
        except ValueError:
            pieces.append((_tidy(match.group(1).replace('\\"', '"')), None))
        end = match.end()
    rest = text[end:].strip(" \t\r\n,]}`")
    if rest.startswith('"'):
        pieces.append((_tidy(rest[1:]), "truncated"))
    return pieces


def _lines(text: str) -> Iterator[tuple[str, Reason | None]]:
    """A line is a prompt; if any is numbered or has a bullet, then only those are."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    listed = any(_BULLET.match(line) for line in lines)
    for line in lines:
        item = _unquoted(_tidy(_BULLET.sub("", line)))
        is_talk = not _BULLET.match(line) if listed else _CHATTER.match(item) or item.endswith(":")
        after = None if listed else _AFTER_COLON.match(item)
        if WITHHELD in item or _REFUSAL.match(item):
            yield item, None
        elif is_talk and after:
            yield _unquoted(after["rest"]), None
        elif is_talk:
            yield item, "chatter"
        elif item.startswith(("[", "{")):
            yield item, "not_text"
        else:
            yield item, None


def _unquoted(text: str) -> str:
    """Without label, emphasis, quotes and comma around it."""
    text = _LABEL.sub("", text.strip("*_").strip())
    text = text.rstrip(",").strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _tidy(text: str) -> str:
    """On one line, without control characters and halves of pairs, which no file can hold."""
    return " ".join(_UNPRINTABLE.sub("", text).split())
