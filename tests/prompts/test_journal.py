"""What is answered once is not asked again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.prompts.chat import ChatError, ChatReply, ChatRequest, Message
from safetydpo_kedro.prompts.journal import ReplyJournal


class Echo:
    """Answers in reverse order with what it was asked; fails at the words in ``broken``."""

    def __init__(self, temperature: float = 1.0, broken: Sequence[str] = ()) -> None:
        self.identity = {"model": "echo", "temperature": temperature}
        self.broken = broken
        self.asked: list[str] = []

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        for request in reversed(requests):
            word = request.messages[0].content
            if word in self.broken:
                raise ChatError("the server is gone")
            self.asked.append(word)
            yield ChatReply(request, f"{word} {request.seed}", "length")


def requests(*words: str, seed: int = 0, category: str | None = None) -> list[ChatRequest]:
    return [ChatRequest((Message("user", word),), seed, (), category) for word in words]


def test_replies_come_in_the_order_of_the_requests_and_only_new_ones_are_asked(tmp_path):
    journal, model = ReplyJournal(tmp_path / "new" / "replies.jsonl"), Echo()
    replies = journal.complete(model, requests("a", "b"))
    assert [(r.text, r.finish_reason) for r in replies] == [("a 0", "length"), ("b 0", "length")]
    model.asked.clear()
    again = ReplyJournal(journal.path).complete(model, requests("c", "b", "a"))
    assert model.asked == ["c"]
    assert [r.text for r in again] == ["c 0", "b 0", "a 0"]


def test_another_model_sampling_seed_or_index_is_another_request(tmp_path):
    journal = ReplyJournal(tmp_path / "replies.jsonl")
    journal.complete(Echo(), requests("a"))
    for model, asked in (
        (Echo(temperature=0.0), requests("a")),
        (Echo(), requests("a", seed=1)),
        (Echo(), [requests("a")[0]._replace(index=(1,))]),
    ):
        journal.complete(model, asked)
        assert model.asked == ["a"]


def test_what_is_answered_before_a_failure_is_kept(tmp_path):
    journal, model = ReplyJournal(tmp_path / "replies.jsonl"), Echo(broken=["b"])
    with pytest.raises(ChatError, match=r"gone. 2 of 4 replies of 'words' are kept in .*run again"):
        journal.complete(model, requests("a", "b", "c", "d"), "words")
    healthy = Echo()
    assert len(journal.complete(healthy, requests("a", "b", "c", "d"))) == 4
    assert healthy.asked == ["b", "a"]


@given(cut=st.integers(0, 400), other=st.sampled_from(["", "\n", "{}\n", "null\n", "\xff\n"]))
def test_a_torn_file_loses_the_torn_line_only(tmp_path_factory, cut, other):
    journal, model = ReplyJournal(tmp_path_factory.mktemp("j") / "replies.jsonl"), Echo()
    journal.complete(model, requests("a", "b", "c"))
    content = journal.path.read_bytes()
    torn = content[: max(0, len(content) - cut)]
    journal.path.write_bytes(torn + other.encode("latin-1"))
    model.asked.clear()
    replies = journal.complete(model, requests("a", "b", "c"))
    assert [reply.text for reply in replies] == ["a 0", "b 0", "c 0"]
    whole = set(content.split(b"\n")) & set((torn + other.encode("latin-1")).split(b"\n")) - {b""}
    assert len(model.asked) == 3 - len(whole)
    model.asked.clear()
    journal.complete(model, requests("a", "b", "c"))
    assert model.asked == []


def test_broken_lines_are_counted_in_a_warning(tmp_path, caplog):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"key": "x"}\n{"key"')
    with caplog.at_level(logging.WARNING):
        ReplyJournal(path).complete(Echo(), requests("a"))
    assert "2 broken lines" in caplog.text


def test_excluded_text_is_never_written(tmp_path):
    journal = ReplyJournal(tmp_path / "replies.jsonl")
    asked = requests("a child in a park", "a fruit", category="sexual")
    replies = journal.complete(Echo(), asked)
    assert [reply.text for reply in replies] == ["[withheld]", "a fruit 0"]
    assert "child" not in journal.path.read_text()
    records = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert all(set(record) == {"key", "text", "finish_reason"} for record in records)
