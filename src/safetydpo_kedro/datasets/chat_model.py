"""A chat model, on a server or in this process, as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from pydantic import SecretStr

from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings
from safetydpo_kedro.prompts.chat_transformers import TransformersChat, TransformersSettings

if TYPE_CHECKING:
    from safetydpo_kedro.prompts.chat import ChatModel

PROVIDERS = {"openai": OpenAISettings, "transformers": TransformersSettings}


class ChatModelDataset(AbstractDataset[None, "ChatModel"]):
    """Loads a language model that answers requests; connects or reads weights at the first one.

    Example:
        .. code-block:: yaml

            language_model:
              type: safetydpo_kedro.datasets.ChatModelDataset
              provider: openai
              model: Qwen/Qwen3-8B
              base_url: http://localhost:8000/v1
              credentials: language_model  # in conf/local/credentials.yml: {api_key: …}

    Args:
        provider: ``openai`` (any server that speaks its protocol) or ``transformers`` (local).
        credentials: ``{api_key: …}``; servers on the own machine usually need none.
        metadata: for other tools, such as Kedro-Viz; not read here.
        settings: of the provider; see
            :class:`safetydpo_kedro.prompts.chat_openai.OpenAISettings` and
            :class:`safetydpo_kedro.prompts.chat_transformers.TransformersSettings`.

    Raises:
        ValueError: an unknown provider, setting or credential, or a value out of range.
    """

    def __init__(
        self,
        *,
        provider: str,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if provider not in PROVIDERS:
            raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r}")
        unknown = sorted(set(credentials or {}) - {"api_key"})
        if unknown:
            raise ValueError(f"credentials of a language model: unknown {unknown}; give api_key")
        self._settings = PROVIDERS[provider].model_validate(settings)
        key = (credentials or {}).get("api_key")
        self._api_key = None if key is None else SecretStr(str(key))
        self.metadata = metadata
        if isinstance(self._settings, TransformersSettings) and self._settings.directory:
            self._filepath = self._settings.directory  # its content tells what is fresh

    @property
    def fingerprint_options(self) -> dict[str, Any]:
        """What changes the results of a node that loads this entry; no address, no secret."""
        return self._model().identity

    def load(self) -> ChatModel:
        """The model; nothing is imported, connected or read yet."""
        return self._model()

    def _model(self) -> ChatModel:
        if isinstance(self._settings, OpenAISettings):
            return OpenAIChat(self._settings, self._api_key)
        return TransformersChat(self._settings)

    def save(self, data: None) -> NoReturn:
        """A language model is only read.

        Raises:
            DatasetError: always.
        """
        raise DatasetError("a language model can be loaded, but not saved")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return self.fingerprint_options
