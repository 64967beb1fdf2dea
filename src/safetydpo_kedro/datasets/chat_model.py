"""A chat model, on a server or in this process, as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from pydantic import BaseModel, SecretStr

from safetydpo_kedro.prompts.chat_openai import OpenAIChat, OpenAISettings
from safetydpo_kedro.prompts.chat_transformers import TransformersChat, TransformersSettings
from safetydpo_kedro.trust import has_login
from safetydpo_kedro.validation import suggestion

if TYPE_CHECKING:
    from safetydpo_kedro.prompts.chat import ChatModel

PROVIDERS = {"openai": OpenAISettings, "transformers": TransformersSettings}
SECRETS = "put the key as api_key into conf/local/credentials.yml, and name it as `credentials:`"


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
        ValueError: an unknown provider, setting or credential, a value out of range, or a secret
            among the settings; what may be a secret is not shown.
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
        _check_settings(PROVIDERS[provider], settings)
        self._settings = PROVIDERS[provider].model_validate(settings)
        self._api_key = _secret((credentials or {}).get("api_key"))
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


def _check_settings(kind: type[BaseModel], settings: dict[str, Any]) -> None:
    """Refuse what may be a secret, without showing it, as pydantic would.

    Raises:
        ValueError: an unknown key, or a password in the address.
    """
    for key in settings:
        if key not in kind.model_fields:
            known = suggestion(key, sorted(kind.model_fields))
            raise ValueError(f"language_model: Unknown key '{key}': {known}. A secret? {SECRETS}")
    if has_login(str(settings.get("base_url", ""))):
        raise ValueError(f"language_model: base_url has a user or password in it; {SECRETS}")


def _secret(key: Any) -> SecretStr | None:
    """A key that can stand in a header.

    Raises:
        ValueError: it cannot; the client would show it to say so.
    """
    if key is None:
        return None
    text = str(key).strip()
    if not (text.isascii() and text.isprintable() and text):
        raise ValueError(
            "credentials of a language model: api_key is empty, or has line breaks or characters "
            "other than ASCII in it; copy it again into conf/local/credentials.yml"
        )
    return SecretStr(text)
