"""Whether a text can be in a language, judged by its letters alone."""

from __future__ import annotations

import unicodedata

from safetydpo_kedro.parameters import Language

# The first word of the Unicode name of a letter is its script.
SCRIPTS: dict[str, frozenset[str]] = {
    "el": frozenset({"GREEK"}),
    "ru": frozenset({"CYRILLIC"}),
    "zh": frozenset({"CJK"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    "ko": frozenset({"HANGUL"}),
}
LATIN = frozenset({"LATIN", "FULLWIDTH"})
FITTING_SHARE = 0.7  # names and loan words may stand in other letters
ASCII_SHARE = 0.9  # "café" is English, "Fußgängerübergänge" is not


def may_be(text: str, language: Language) -> bool:
    """Whether the letters of ``text`` are those of ``language``.

    A cheap guard against a model that drifts into another script. It does not tell languages of
    the same script apart, but for English, which has next to no accented letters.

    Example:
        >>> may_be("a knife on a café table", "en"), may_be("нож на столе", "en")
        (True, False)
    """
    letters = [character for character in text if character.isalpha()]
    if language == "any" or not letters:
        return True
    scripts = SCRIPTS.get(language, LATIN)
    fitting = sum(_script(letter) in scripts for letter in letters)
    plain = sum(letter.isascii() for letter in letters)
    is_plain = language != "en" or plain >= ASCII_SHARE * len(letters)
    return is_plain and fitting >= FITTING_SHARE * len(letters)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]
