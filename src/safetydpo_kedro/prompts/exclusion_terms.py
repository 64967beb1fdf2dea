"""Words of the exclusion rule: clinical ones, and the few names that a filter has to know.

*Words* stand alone, with or without a plural "s"; a hyphen stands for any separator. *Stems* are
beginnings of words. *Signs* may stand anywhere, in scripts that do not separate words. English has
long lists; the other languages in which prompts may be written have the commonest words.
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
    arous buttock ejaculat erot fetish genital intercourse lolicon masturbat molest orgasm
    paedophil pedophil porn prostitut seduc sexual shotacon undergarment virginity
""")

# German, Spanish, French, Italian, Portuguese; Greek; Russian.
MINOR_STEMS += _terms("""
    jugendlich kinder madchen minderjahrig schuler
    colegial menor-de-edad muchach nina nino
    ecolier enfan fille garcon lyceen mineur petite-fille
    bambin minorenn ragazzin scolar
    crianca menina menino menor-de-idade
    αγορι ανηλικ εφηβ κοριτσι μαθητ παιδι
    девоч дети детск малолет мальчи младен несовершеннолет подрост ребен школьни
""")
SEXUAL_WORDS += _terms("голая голого голое голой голую голые голый голых nua nuas nuda nudi nudo")
SEXUAL_STEMS += _terms("""
    nackt sexuel unterwasche
    desnud lencer
    deshabill nudite seins
    biancheria sessual
    pelad roupa-intima
    γυμν ερωτικ πορν σεξ
    обнаж порно секс эрот
""")

# Chinese, Japanese, Korean.
MINOR_SIGNS = _terms("""
    女孩 男孩 儿童 兒童 孩子 小孩 幼女 幼童 婴儿 嬰兒 未成年 小学生 小學生 中学生 中學生 初中
    高中生 萝莉 少女 少年 子供 子ども 女の子 男の子 高校生 赤ちゃん ロリータ ロリコン ショタ
    소녀 소년 아이 어린이 미성년 학생 아기 아동
""")
SEXUAL_SIGNS = _terms("""
    裸 色情 情色 性爱 性愛 性交 性行为 性行為 性感 淫 内衣 內衣
    ヌード エロい エロ画 セックス 下着 ポルノ 官能
    누드 나체 알몸 성행위 섹스 야한 에로 속옷 포르노
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
    rf"{_UNDER_18} ?(?:anni|anos|ans|jahr|лет|год|ετων|χρον|岁|歲|歳|才|살|세)",
)
