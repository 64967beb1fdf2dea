"""The client against a real server that does what servers do on bad days."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr, ValidationError

from safetydpo_kedro.prompts.chat import ChatError, ChatRequest, Message
from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings

from .chat_server import Answer, ChatServer, completion, in_turn

GOOD = completion("a knife")


def requests(count: int = 1) -> list[ChatRequest]:
    return [
        ChatRequest((Message("system", "s"), Message("user", f"u{i}")), seed=i)
        for i in range(count)
    ]


def chat(server: ChatServer, **settings) -> OpenAIChat:
    settings = {"concurrency": 1, "timeout": 5, "max_retries": 2, "max_wait": 0.05} | settings
    return OpenAIChat(OpenAISettings(model="small", base_url=server.url, **settings))


def test_what_is_asked_and_what_comes_back():
    with ChatServer(in_turn([completion("a knife", "length")])) as server:
        model = chat(server, temperature=0.5, max_tokens=7, extra={"top_k": 3})
        [reply] = model.complete(requests())
    assert (reply.text, reply.finish_reason) == ("a knife", "length")
    assert server.requests == [
        {
            "model": "small",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u0"}],
            "temperature": 0.5,
            "max_tokens": 7,
            "seed": 0,
            "top_k": 3,
        }
    ]


def test_what_is_null_is_not_sent():
    with ChatServer(lambda body: GOOD) as server:
        list(chat(server, temperature=None, send_seed=False).complete(requests()))
    assert set(server.requests[0]) == {"model", "messages", "max_tokens"}


def test_requests_are_under_way_at_once_and_come_back_as_they_complete():
    def slow_first(body):
        index = int(body["messages"][1]["content"][1:])
        return completion(str(index))._replace(pause=0.2 * (2 - index))

    with ChatServer(slow_first) as server:
        replies = list(chat(server, concurrency=3).complete(requests(3)))
    assert sorted(reply.text for reply in replies) == ["0", "1", "2"]
    assert [reply.text for reply in replies] == ["2", "1", "0"]
    assert all(reply.text == str(reply.request.seed) for reply in replies)
    assert max(server.times) - min(server.times) < 0.2


@pytest.mark.parametrize(
    "bad",
    [
        Answer("{}", status=500),
        Answer("busy", status=503),
        Answer(GOOD.body[:40]),
        Answer("<html>proxy</html>"),
        Answer('{"object": "error"}'),
        Answer('{"choices": []}'),
        Answer("[]"),
        Answer('{"choices": [{"index": 0, "finish_reason": "stop", "message": null}]}'),
        completion(None),
    ],
    ids=lambda bad: f"{bad.status} {str(bad.body)[:25]}",
)
def test_a_failure_that_may_pass_is_tried_again(bad):
    with ChatServer(in_turn([bad, GOOD, GOOD])) as server:
        [reply] = chat(server).complete(requests())
    assert reply.text == "a knife"
    assert len(server.requests) == 2


def test_a_busy_server_is_given_the_time_it_asks_for():
    wait = Answer("{}", status=429, headers=(("Retry-After", "1"),))
    with ChatServer(in_turn([wait, GOOD])) as server:
        [reply] = chat(server).complete(requests())
    assert reply.text == "a knife"
    assert server.times[1] - server.times[0] >= 1


def test_a_reply_that_does_not_come_is_tried_again_and_then_an_error():
    with ChatServer(lambda body: GOOD._replace(pause=1)) as server:
        with pytest.raises(ChatError, match=r"no reply within 0\.1 s, 2 tries; raise `timeout`"):
            list(chat(server, timeout=0.1, max_retries=1).complete(requests()))
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "conf/local/credentials.yml"),
        (403, "conf/local/credentials.yml"),
        (404, "correct `model` or `base_url`"),
        (400, "correct temperature"),
        (422, "correct temperature"),
    ],
)
def test_what_will_not_pass_fails_at_once_and_says_what_to_do(status, advice):
    body = json.dumps({"error": {"message": "no such thing"}})
    with ChatServer(lambda _: Answer(body, status=status)) as server:
        with pytest.raises(ChatError) as error:
            list(chat(server).complete(requests(50)))
        assert len(server.requests) < 5
    for words in ("'small'", server.url, f"status {status}", "no such thing", advice):
        assert words in str(error.value)


def test_broken_replies_without_end_are_an_error():
    with ChatServer(lambda body: Answer('{"choices": []}')) as server:
        with pytest.raises(ChatError, match="no choices"):
            list(chat(server).complete(requests()))
        assert len(server.requests) == 3


def test_a_server_that_is_not_there_is_an_error():
    with ChatServer(lambda body: GOOD) as server:
        pass
    with pytest.raises(ChatError, match=r"no connection, 1 tries .*; start the server"):
        list(chat(server, max_retries=0).complete(requests()))


def test_replies_under_way_are_kept_when_another_request_fails():
    def answer(body):
        if body["messages"][1]["content"] == "u0":
            return Answer("{}", status=401, pause=0.05)
        return GOOD._replace(pause=0.3)

    with ChatServer(answer) as server:
        kept = []
        with pytest.raises(ChatError, match="401"):
            for reply in chat(server, concurrency=3).complete(requests(40)):
                kept.append(reply.request.seed)
    assert {1, 2} <= set(kept)
    assert len(server.requests) < 8
    assert len(kept) == len(server.requests) - 1


@pytest.mark.parametrize(
    "filtered",
    [
        completion(None, "content_filter"),
        Answer(json.dumps({"error": {"code": "content_filter", "message": "no"}}), status=400),
    ],
)
def test_a_provider_that_filters_gives_an_empty_reply(filtered):
    with ChatServer(in_turn([filtered])) as server:
        [reply] = chat(server).complete(requests())
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


def test_a_refusal_is_a_reply():
    with ChatServer(in_turn([completion(None, refusal="I cannot do that.")])) as server:
        [reply] = chat(server).complete(requests())
    assert reply.text == "I cannot do that."


def test_the_key_is_sent_and_shown_nowhere():
    with ChatServer(lambda body: Answer("{}", status=401)) as server:
        settings = OpenAISettings(model="small", base_url=server.url)
        model = OpenAIChat(settings, SecretStr("s3cret"))
        with pytest.raises(ChatError) as error:
            list(model.complete(requests()))
    assert server.keys == ["Bearer s3cret"]
    assert "s3cret" not in repr(model) + str(model.identity) + str(error.value)


def test_identity_is_what_changes_replies():
    def identity(**settings):
        return OpenAIChat(OpenAISettings(**{"model": "small"} | settings)).identity

    same = identity()
    assert identity(base_url="http://other/v1", timeout=1, max_retries=0, concurrency=1) == same
    assert identity(model="other") != same
    assert identity(temperature=0.1) != same
    assert identity(extra={"top_k": 1}) != same


def test_an_unknown_setting_is_an_error():
    with pytest.raises(ValidationError, match="did you mean 'temperature'"):
        OpenAISettings.model_validate({"model": "x", "temprature": 1})
