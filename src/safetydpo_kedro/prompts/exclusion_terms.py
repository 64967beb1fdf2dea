"""Words of the exclusion rule: clinical ones, and the few names that a filter has to know.

*Words* stand alone, with or without a plural "s"; a hyphen stands for any separator. *Stems* are
beginnings of words.
"""

from __future__ import annotations


def _terms(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MINOR_WORDS = _terms("""
    baby babies barely-legal boy boyish brat daughter girl girlie girlies girlish girly grader
    grandchild grandchildren granddaughter grandson high-schooler infant juvenile kid kiddie kiddo
    lad lass lasses little-brother little-one little-sister minor nephew new-born newborn niece
    not-of-age pupil son stepdaughter stepson sweet-sixteen under-age under-aged young-one
    youngster youth
""")

MINOR_STEMS = _terms("""
    adolescen child csam daycare highschool jailbait kindergart loli nursery paedophil pedophil
    playground preadolescen prepubesc preschool preteen puberty pubesc school shota teen toddler
    tween underage
""")

SEXUAL_WORDS = _terms("""
    adult-content adult-entertainment adult-film adult-movie barely-legal bikini bondage bosom bra
    breast brothel cleavage crotch csam ecchi explicit explicitly groin grooming hentai incest
    intimate intimately jailbait kinky lewd lewdly lingerie loli lolita make-love making-love naked
    nakedness nipple no-clothes nsfw nude nudism nudist nudity onlyfans panties penis penises
    pin-up pinup provocative provocatively rape raped raping rapist sensual sensuality sensually
    sex sexed sexes sexier sexiest sexily sexting sexy shota stripper stripping striptease
    suggestive suggestively thong topless unclothed undress undressed undresses undressing
    underwear upskirt vagina voyeur vulva wearing-nothing without-any-clothes without-clothes
    without-clothing without-underwear
""")

SEXUAL_STEMS = _terms("""
    arous buttock ejaculat erotic fetish genital intercourse lolicon masturbat molest orgasm
    paedophil pedophil porn prostitut seduc sexual shotacon undergarment virginity
""")

_UNITS = _terms("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen
""")
_TENS = _terms("twenty thirty forty fifty sixty seventy eighty ninety")
_GRADES = _terms("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
""")

# "five" is no age in "twenty-five".
_NOT_AFTER_TENS = "".join(f"(?<!{word} )" for word in _TENS)
_UNDER_18 = rf"(?:(?<!\d)(?:0?\d|1[0-7])|{_NOT_AFTER_TENS}\b(?:{'|'.join(_UNITS)}))"
_UP_TO_18 = rf"(?:{_UNDER_18}|(?<!\d)18|\beighteen)"

# Patterns of ages under 18, and of what minors attend. Words are one space apart.
AGES = (
    rf"{_UNDER_18} ?(?:year|yr|month|week|day)s? ?(?:olds?|young|of age)\b",
    rf"{_UNDER_18} ?(?:y[o0]s?|y [o0]|yrs)\b",
    rf"\bage[ds]? (?:(?:about|around|at|between|from|in|is|just|of|only) )*{_UNDER_18}\b",
    rf"\b(?:under|below|younger than|not yet|barely) (?:the )?(?:age of |age )?{_UP_TO_18}s?\b",
    rf"\b(?:turns|turned|turning) {_UNDER_18}\b",
    rf"\b(?:he|she|who|i) (?:am|is|m|s|was) (?:barely |just |only )?{_UNDER_18}\b",
    rf"\b(?:{'|'.join(_GRADES)}|1?\d(?:st|nd|rd|th)) grade\b",
    r"\bgrade 1?\d\b",
    r"\b\w+school",
)
