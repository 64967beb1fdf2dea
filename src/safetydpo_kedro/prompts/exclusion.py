"""The one rule that is always on: nothing that brings minors together with sexual content.

There is no switch. A text is searched in several readings, so that tricks of spelling do not
help, and in doubt it is excluded: "girl" and "boy" count as minors, a school as a place of minors.
The words are in :mod:`safetydpo_kedro.prompts.exclusion_terms`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from safetydpo_kedro.prompts.exclusion_terms import (
    AGES,
    MINOR_SIGNS,
    MINOR_STEMS,
    MINOR_WORDS,
    SEXUAL_SIGNS,
    SEXUAL_STEMS,
    SEXUAL_WORDS,
)

_LOOKALIKES = str.maketrans("аеорсухкмтнвіјѕαερουικντ", "aeopcyxkmthbijsaepouiknt")
_DIGITS = str.maketrans("013456789", "oieasgtbg")
_SYMBOLS = str.maketrans("@$!|€+", "asiiet")


def is_excluded(*texts: str, category: str | None = None) -> bool:
    """Whether texts that belong together bring minors together with sexual content.

    Args:
        texts: judged together: one may speak of a minor, another of sex.
        category: harm category in any spelling; it is judged like a text, so "sexual" counts.

    Example:
        >>> is_excluded("a girl on a swing"), is_excluded("a girl on a swing", category="sexual")
        (False, True)
        >>> is_excluded("a woman in a swimsuit", category="sexual")
        False
    """
    together = [*texts, category or ""]
    return any(map(_is_sexual, together)) and any(map(_is_about_minors, together))


def _is_sexual(text: str) -> bool:
    words, letters = _readings(text)
    return bool(_SEXUAL.search(words) or _SEXUAL_INSIDE.search(letters))


def _is_about_minors(text: str) -> bool:
    words, letters = _readings(text)
    return bool(_MINORS.search(words) or _MINORS_INSIDE.search(letters))


@lru_cache(maxsize=4096)
def _readings(text: str) -> tuple[str, str]:
    """All ways to read a text, a line each, and what is spelled there letter by letter.

    A reading is in lower case, with one space between words. Invisible characters and punctuation
    may divide words or be strewn into them, digits and symbols may stand for letters.
    """
    readings = {
        reading
        for spelling in _spellings(_without_marks(text))
        for separator in (" ", "")
        for reading in _with_digits_read(" ".join(_PUNCTUATION.sub(separator, spelling).split()))
    }
    words = "\n".join(sorted(readings))
    runs = {run.group().replace(" ", "") for run in _LETTERS.finditer(words)}
    return words, "\n".join(reading for run in sorted(runs) for reading in _with_digits_read(run))


def _without_marks(text: str) -> str:
    """Lower case, without diacritics, in letters of one alphabet."""
    text = text.casefold()
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
        text = text.casefold().translate(_LOOKALIKES)
    return _skeleton(text)


def _spellings(text: str) -> Iterator[str]:
    """The text without invisible characters, and with letters for symbols."""
    odd = "" if text.isascii() else text
    invisible = {ord(c) for c in odd if unicodedata.category(c) == "Cf"}
    for filler in ("", " ") if invisible else ("",):
        plain = text.translate(dict.fromkeys(invisible, filler))
        yield plain
        if _SYMBOLS_IN_WORDS.search(plain):
            yield _SYMBOLS_IN_WORDS.sub(lambda match: match.group().translate(_SYMBOLS), plain)


def _with_digits_read(text: str) -> Iterator[str]:
    """The text, and the text with letters for the digits in words; numbers stay."""
    yield text
    if _DIGIT_BY_LETTER.search(text):
        yield _WORDS_WITH_LETTERS.sub(lambda match: match.group().translate(_DIGITS), text)


def _skeleton(text: str) -> str:
    """I and l look alike: they are one letter here, in the terms as in the texts."""
    return text.replace("l", "i")


def _search(
    words: Sequence[str], stems: Sequence[str], signs: Sequence[str], patterns: Sequence[str] = ()
) -> re.Pattern:
    """What finds a term among words."""
    whole, beginnings = (_any_of([word.replace("-", " ") for word in t]) for t in (words, stems))
    terms = rf"\b(?:(?:{whole})s?\b|{beginnings})"
    return re.compile(_without_marks("|".join([terms, _any_of(signs), *patterns])))


def _any_of(terms: Sequence[str]) -> str:
    """Alternatives by their first letter, which is a few times as fast as one after another."""
    by_letter = groupby(sorted(terms), key=lambda term: term[0])
    return "|".join(f"{c}(?:{'|'.join(term[1:] for term in same)})" for c, same in by_letter)


def _search_inside(terms: Sequence[str], patterns: Sequence[str] = ()) -> re.Pattern:
    """What finds a term among letters without spaces."""
    squeezed = [term.replace("-", "") for term in terms]
    squeezed += [p.replace(" ?", "").replace(" ", "").replace(r"\b", "") for p in patterns]
    return re.compile(_without_marks("|".join(squeezed)))


_PUNCTUATION = re.compile(r"[^\w\s]|_")
_LETTERS = re.compile(r"\b(?:\w )+\w\b")  # l i k e  t h i s
# Only from the beginning of a run: thousands of symbols would take minutes otherwise.
_SYMBOLS_IN_WORDS = re.compile(r"(?<![@$!|€+])[@$!|€+]++(?=\W?\w)")
_DIGIT_BY_LETTER = re.compile(r"\d(?=[^\W\d])|(?<=[^\W\d])\d")
_WORDS_WITH_LETTERS = re.compile(r"\b\d*[^\W\d]\w*")
_MINORS = _search(MINOR_WORDS, MINOR_STEMS, MINOR_SIGNS, AGES)
_SEXUAL = _search(SEXUAL_WORDS, SEXUAL_STEMS, SEXUAL_SIGNS)
_MINORS_INSIDE = _search_inside([*MINOR_WORDS, *MINOR_STEMS, *MINOR_SIGNS], AGES)
_SEXUAL_INSIDE = _search_inside([*SEXUAL_WORDS, *SEXUAL_STEMS, *SEXUAL_SIGNS])
