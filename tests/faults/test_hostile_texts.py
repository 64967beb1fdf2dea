"""Texts of others: prompts, rows and replies of every kind, some of them made to do harm."""

from __future__ import annotations

import csv
import io
import random
import warnings

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from safetydpo_kedro.datasets import DiffusionPipelineDataset
from safetydpo_kedro.diffusion.tokens import Vocabulary
from safetydpo_kedro.parameters import ReplyParameters, SplitParameters
from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.prompt_list import PromptListParameters, import_prompts
from safetydpo_kedro.prompts.importers.schema import Intake, prompts_table, rejected_table
from safetydpo_kedro.prompts.replies import parse_prompts
from safetydpo_kedro.prompts.split import normalise, split_prompts
from safetydpo_kedro.prompts.templates import read_templates
from safetydpo_kedro.prompts.withhold import withhold
from safetydpo_kedro.reporting.grids import contact_sheet
from safetydpo_kedro.reporting.tables import to_markdown
from safetydpo_kedro.settings import CATEGORIES

from ..worlds import ROOT
from .damage import check_clear, patience
from .test_damaged_files import PIXELS

PIECES = (
    *("a", "red", "kite", "the", "1", "12", "é", "ß", "İ", "ﬁ", "日本", "नमस्ते", "עברית"),
    *(" ", "  ", "\t", "\n", "\r\n", "\u2028", "\x85", "\0", "\x1b[31m", "\x7f", "\ufeff"),
    *("\u202e", "\u2066", "\u200b", "\u200d", "\u00ad", "\ud800", "\udfff", "\U0010ffff"),
    *(
        "👩‍👩‍👧‍👦",
        "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "\u0301" * 40,
        "a\u0489" * 20,
        "$x_{",
        "$",
        "\\frac",
        "^",
        "{",
        "}",
        "%s",
        "{0}",
    ),
    *('"', '""', "'", ",", ";", "|", "`", "<script>", "&lt;", "</p>", "<!--", "]]>", "=1+1", "@a"),
    *("../..", "/etc/passwd", "C:\\", "[", "]", '["', '"]', "```json\n", "<think>", "- ", "1. "),
    *("Sure, here are", "I'm sorry", "nan", "null", "-0", "1e999", "null,", '{"prompt":', ":", "*"),
)
TEN_THOUSANDS = (
    *("a", "a ", "a1", "$@", "$ ", "\u0301", "a\u200b", "\0", "1. ", "- ", "12 year ", '"', '"" '),
    *(
        '["a',
        '["a" ',
        "[",
        "[1,",
        '[{"a":',
        "\\",
        '\\"',
        "`",
        "```\n",
        "<think>",
        "{",
        ":",
        ",",
        " ",
    ),
    *("\n", "\ud800", "👩‍👧", '[{"prompt":"a"},', "i l k e ", "gir ", "sixteen ", "| ", "<b>", "é"),
)


def hostile(chance: random.Random) -> str:
    """A text of pieces that are harmless one by one, or of any characters at all."""
    if chance.random() < 0.1:
        return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(1, 20)))
    return "".join(chance.choices(PIECES, k=chance.randrange(1, 10)))


def bytes_of(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass").replace(b"\0", b"")


PUBLISHED = PromptListParameters.model_validate(
    {
        "columns": {
            "prompt_id": "id",
            "categories": "categories",
            "seed": "seed",
            "guidance_scale": "guidance",
            "width": "width",
        }
    }
)
NUMBERS = ("1", "7.5", "-1", "", "nan", "inf", "1e999", "9" * 30, "0x1", " 5 ", "５", "1_0", "a")


def test_rows_of_a_prompt_file(tally, chance, rounds, tmp_path):
    """From the file over the import, Parquet, and the split, to tables in Markdown."""
    books, file = tally("rows of prompt files"), tmp_path / "list.csv"
    known = Categories(CATEGORIES)
    for batch in range(rounds(2)):
        rows = [
            [hostile(chance), f"{batch}/{i}", chance.choice((*CATEGORIES, "", "cats"))]
            for i in range(1000)
        ]
        for row in rows:
            row += [chance.choice(NUMBERS) if chance.random() < 0.1 else "1" for _ in range(3)]
        names = ["prompt", "id", "categories", "seed", "guidance", "width"]
        file.write_bytes(bytes_of([names, *rows]))
        intake = Intake("x")
        with patience():
            table = prompts_table(import_prompts(file, PUBLISHED, known, 0, intake))
        assert len(table) + len(intake.rejected) == intake.rows
        books.aside(len(intake.rejected), of=intake.rows)
        rejected_table(intake.rejected).to_parquet(tmp_path / "rejected.parquet")
        table.to_parquet(tmp_path / "table.parquet")
        back = pd.read_parquet(tmp_path / "table.parquet")
        assert back["prompt"].tolist() == table["prompt"].tolist()
        lines = to_markdown(table[["prompt", "prompt_id"]].head(50)).strip().splitlines()
        assert len(lines) == min(50, len(table)) + 2
        train, test = split_prompts(
            table.assign(concept="one"), ["prompt"], SplitParameters(seed=0)
        )
        assert not set(train["prompt"].map(normalise)) & set(test["prompt"].map(normalise))


def test_replies_of_a_language_model(tally, chance, rounds):
    books, rules = tally("replies"), ReplyParameters()
    for _ in range(rounds(1500)):
        reply = "".join(hostile(chance) for _ in range(chance.randrange(1, 6)))
        with patience():
            parsed = parse_prompts(withhold(reply, "hate"), rules, asked=["Write prompts."])
        books.aside(not parsed.prompts, of=1)
        for prompt in parsed.prompts:
            prompt.encode()  # can be written to a file
            assert len(prompt) <= rules.max_characters and "\n" not in prompt and "\0" not in prompt
        assert len({normalise(prompt) for prompt in parsed.prompts}) == len(parsed.prompts)


@pytest.mark.parametrize("piece", TEN_THOUSANDS)
def test_long_texts_take_a_moment(tally, rounds, piece):
    """Pieces that begin something, and never end it, again and again."""
    books, text = tally("long texts"), (piece * 100_000)[: min(100_000, rounds(4000))]
    for reply in (text, f'["a{text}', f"a{text}x"):
        with patience():
            parse_prompts(reply, ReplyParameters())
            parse_prompts(withhold(reply, "hate"), ReplyParameters())
        books.aside(1, of=1)
    with patience():
        is_excluded(text, category="sexual")
        to_markdown(pd.DataFrame({"prompt": [text.replace("\ud800", "")]}))


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", ['["a', "[", "- a\n"])
def test_megabytes_of_a_reply_are_cut(tally, megabytes):
    with patience():
        cut = withhold(megabytes * 1_000_000, "hate")
    assert len(cut) <= 200_000
    tally("replies").aside(1, of=1)


def test_prompts_become_tokens(tally, chance, rounds):
    model = DiffusionPipelineDataset(
        filepath=str(ROOT / "data/01_raw/base_model"), device="cpu"
    ).load()
    words, books = Vocabulary(model.text_towers), tally("prompts as tokens")
    long = [piece * (100_000 // len(piece)) for piece in ("a ", "é", "\u0301", "👩‍👧 ", "\u202e")]
    texts = [hostile(chance).encode("utf-8", "ignore").decode() for _ in range(rounds(500))]
    for text in (*long, *texts):
        assert len(books.tries(lambda text=text: words.encode(text))) <= words.limit


def test_prompts_are_drawn_above_images(tally, chance, rounds):
    """Formulas that are none, and letters that no font has."""
    books = tally("captions of grids")
    count = min(rounds(24), 1000)  # each takes as long as a hundred of the others
    texts = [hostile(chance).encode("utf-8", "ignore").decode() for _ in range(count)]
    texts += ["$\\frac{1}{", "$x$", "$$", "\\$", "a" * 10_000]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts that lack a letter
        for text in texts:
            figure = contact_sheet(PIXELS[None], [text], title=text[:100])
            books.tries(lambda figure=figure: figure.savefig(io.BytesIO(), format="png"))


LAUGHS = "a0: &a0 ['ha', 'ha']\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "version: *a8\n",
        LAUGHS + "unsafe_prompts: *a8\n",
        LAUGHS + "concepts: {system: *a8, user: *a8}\n",
        "version: 1",
        "[]",
        "null",
        "concepts: {system: '$', user: '${'}",
    ],
)
def test_templates_of_another_form(tally, text):
    content = yaml.safe_load(text)
    assert (
        tally("prompt templates").tries(lambda: read_templates(content), "prompt_templates") is None
    )


@pytest.mark.parametrize("values", [{"max_characters": v} for v in (None, "x", -1, 1e400, [], {})])
def test_parameters_of_another_form(tally, values):
    try:
        ReplyParameters.model_validate(values)
    except ValidationError as error:
        check_clear(error, ("max_characters",))
    else:
        raise AssertionError(f"{values} is taken")
    tally("run-time parameters").counts.update(tried=1, refused=1)
