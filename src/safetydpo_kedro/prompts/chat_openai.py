"""Chat models behind any server that speaks the protocol of OpenAI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr

from safetydpo_kedro.prompts.chat import FILTERED, ChatError, ChatReply, ChatRequest, ChatSettings
from safetydpo_kedro.trust import without_secrets

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

SHOWN_CHARACTERS = 300
ADVICE = {
    400: "correct temperature, max_tokens or extra, which this server does not take as they are",
    401: "put a valid api_key into conf/local/credentials.yml and name it under `credentials:`",
    403: "use an api_key that may use this model, in conf/local/credentials.yml",
    404: "correct `model` or `base_url` (it usually ends in /v1)",
    429: "lower `concurrency`, raise `max_retries`, or look at the quota of the account",
}


class OpenAISettings(ChatSettings):
    """A server (vLLM, llama.cpp, Ollama, a hosted one) and how it is asked."""

    provider: Literal["openai"] = "openai"
    model: str = Field(min_length=1, description="name of the model on the server")
    base_url: str = Field("http://localhost:8000/v1", description="address of the server's API")
    send_seed: bool = Field(True, description="false for servers that refuse the field `seed`")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="further fields of the request body"
    )
    concurrency: int = Field(8, gt=0, description="requests under way at once")
    timeout: float = Field(120.0, gt=0, description="seconds to wait for one reply")
    max_retries: int = Field(5, ge=0, description="further tries after a failure that may pass")
    max_wait: float = Field(
        8.0, ge=0, description="seconds between tries after a broken reply, at most"
    )


class BrokenReplyError(ValueError):
    """The server answered with success, but not with a chat completion."""


class OpenAIChat:
    """Asks a server, several requests at a time; see :class:`safetydpo_kedro.prompts.ChatModel`.

    Failed connections, time-outs and the statuses 408, 409, 429 and 5xx are tried again by the
    client, which honours ``Retry-After``; broken replies are tried again here. Errors are raised
    without those of the client behind them: a server may quote the key, and so would they.

    Args:
        settings: server, model and sampling.
        api_key: sent to the server; local servers need none.
    """

    def __init__(self, settings: OpenAISettings, api_key: SecretStr | None = None) -> None:
        self._settings = settings
        self._api_key = api_key
        sampling = settings.model_dump(include={"temperature", "top_p", "max_tokens"})
        self.identity: dict[str, Any] = {
            "provider": settings.provider,
            "model": settings.model,
            **sampling,
            "extra": settings.extra,
        }

    def _connect(self) -> OpenAI:
        try:
            import tenacity  # noqa: F401
            from openai import OpenAI
        except ImportError as error:
            raise ChatError(
                "language_model: the provider 'openai' needs a package that is not installed "
                f"({error.name}): pip install 'safetydpo_kedro[llm]'"
            ) from error
        return OpenAI(
            base_url=self._settings.base_url,
            api_key=self._api_key.get_secret_value() if self._api_key else "none",
            timeout=self._settings.timeout,
            max_retries=self._settings.max_retries,
        )

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        """See :class:`safetydpo_kedro.prompts.chat.ChatModel`.

        After a failure nothing new is asked, but replies under way are waited for and yielded.
        """
        client = self._connect()
        failure: BaseException | None = None
        executor = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="chat")
        futures = [executor.submit(self._answer, client, request) for request in requests]
        try:
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                if error := future.exception():
                    failure = failure or error
                    _cancel(futures)
                else:
                    yield future.result()
        finally:
            _cancel(futures)
            client.close()
            executor.shutdown(wait=False)
        if failure is not None:
            raise failure

    def _answer(self, client: OpenAI, request: ChatRequest) -> ChatReply:
        """One reply, with all retries."""
        import openai

        try:
            return self._retrying(self._ask, client, request)
        except BrokenReplyError as error:
            raise self._error(str(error), "look at the server, or raise `max_tokens`") from None
        except openai.APIStatusError as error:
            if error.code == FILTERED:
                return ChatReply(request, "", FILTERED)
            status = error.status_code
            usual = "look at the server's log, then run again"
            advice = ADVICE.get(status, ADVICE[400] if status == 422 else usual)
            shown = self._shown(" ".join(error.message.split()))[:SHOWN_CHARACTERS]
            raise self._error(f"status {status}: {shown}", advice) from None
        except openai.APITimeoutError:
            what = f"no reply within {self._settings.timeout:g} s, {self._tries} tries"
            advice = "raise `timeout`, lower `concurrency` or `max_tokens`"
            raise self._error(what, advice) from None
        except openai.APIConnectionError as error:
            what = f"no connection, {self._tries} tries ({error.__cause__ or error})"
            raise self._error(what, "start the server or correct `base_url`") from None

    def _retrying(self, call: Any, *arguments: Any) -> ChatReply:
        """Call again after a broken reply, with growing pauses."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
        from tenacity.wait import wait_random_exponential

        retrying = Retrying(
            retry=retry_if_exception_type(BrokenReplyError),
            stop=stop_after_attempt(self._settings.max_retries + 1),
            wait=wait_random_exponential(multiplier=0.5, max=self._settings.max_wait),
            reraise=True,
        )
        return retrying(call, *arguments)

    def _ask(self, client: OpenAI, request: ChatRequest) -> ChatReply:
        """One reply.

        Raises:
            BrokenReplyError: the body is not JSON, or not a chat completion with content.
        """
        settings = self._settings
        options = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": request.seed if settings.send_seed else None,
        }
        try:
            completion = client.chat.completions.create(
                model=settings.model,
                messages=[message._asdict() for message in request.messages],
                extra_body=settings.extra or None,
                **{name: value for name, value in options.items() if value is not None},
            )
        except json.JSONDecodeError as error:
            raise BrokenReplyError(f"the body is not JSON ({error})") from error
        return _reply(request, completion)

    @property
    def _tries(self) -> int:
        return self._settings.max_retries + 1

    def _error(self, what: str, advice: str) -> ChatError:
        server = f"language model '{self._settings.model}' at {self._settings.base_url}"
        return ChatError(self._shown(f"{server}: {what}; {advice}"))

    def _shown(self, text: str) -> str:
        return without_secrets(text, self._api_key and self._api_key.get_secret_value())

    def __repr__(self) -> str:
        address = without_secrets(self._settings.base_url)
        return f"OpenAIChat(model={self._settings.model!r}, base_url={address!r})"


def _reply(request: ChatRequest, completion: ChatCompletion) -> ChatReply:
    """Content of the first choice; the client does not check that there is one."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise BrokenReplyError("the body has no choices, so it is not a chat completion")
    message = getattr(choices[0], "message", None)
    finish = getattr(choices[0], "finish_reason", None) or "stop"
    text = getattr(message, "content", None) or getattr(message, "refusal", None)
    if finish == FILTERED:
        return ChatReply(request, "", FILTERED)
    if not isinstance(text, str):
        raise BrokenReplyError(f"the reply has no content (finish_reason '{finish}')")
    return ChatReply(request, text, str(finish))


def _cancel(futures: Sequence[Future[ChatReply]]) -> None:
    for future in futures:
        future.cancel()
