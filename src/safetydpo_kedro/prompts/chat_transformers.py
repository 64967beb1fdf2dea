"""Chat models that run in this process, through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from safetydpo_kedro.artifacts import fingerprint, visible_files
from safetydpo_kedro.prompts.chat import ChatError, ChatReply, ChatRequest, ChatSettings
from safetydpo_kedro.trust import check_revision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TransformersSettings(ChatSettings):
    """A local causal language model and how it is asked."""

    provider: Literal["transformers"] = "transformers"
    model: str = Field(min_length=1, description="directory, or name on the hub")
    revision: str | None = Field(None, description="commit of a model on the hub, 40 hex digits")
    gguf_file: str | None = Field(
        None, description="file of GGUF weights in it; null: safetensors weights"
    )
    batch_size: int = Field(8, gt=0, description="replies written at once")
    device: str = Field("auto", description="CUDA if there is one, else CPU; or a torch device")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @property
    def directory(self) -> Path | None:
        """Where the model lies, ``None`` if it is named by its place on the hub."""
        path = Path(self.model)
        return path if path.is_dir() else None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        try:
            check_revision(None if self.directory else self.model, self.revision)
        except ValueError as error:
            raise ValueError(f"there is no directory '{self.model}'; {error}") from None
        return self


class TransformersChat:
    """Writes replies in batches; see :class:`safetydpo_kedro.prompts.chat.ChatModel`.

    Every request is sampled with random numbers of its own, so its reply does not depend on the
    batch that it is in, up to rounding in the forward pass. Pickled weights are never read.
    The model is loaded when the first request comes.
    """

    def __init__(self, settings: TransformersSettings) -> None:
        self._settings = settings
        directory = settings.directory
        self.identity: dict[str, Any] = {
            "provider": settings.provider,
            "model": directory.resolve().name if directory else settings.model,
            "weights": _weight_sizes(directory) if directory else None,
            **settings.model_dump(
                include={"gguf_file", "dtype", "temperature", "top_p", "max_tokens"}
            ),
            **({} if directory else {"revision": settings.revision}),
        }

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        settings = self._settings
        files = {"gguf_file": settings.gguf_file} if settings.gguf_file else {}
        weights = files or {"use_safetensors": True}
        source: dict[str, Any] = {"trust_remote_code": False}  # None would ask on the terminal
        if settings.directory is None:
            source["revision"] = settings.revision
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                settings.model, padding_side="left", **files, **source
            )
            model = AutoModelForCausalLM.from_pretrained(
                settings.model, dtype=settings.dtype, **weights, **source
            )
        except ImportError as error:
            raise ChatError(
                f"language_model: '{settings.model}' needs a package that is not installed "
                f"({error}): pip install 'safetydpo_kedro[llm]'"
            ) from error
        except (OSError, ValueError) as error:
            raise self._error(f"cannot be loaded: {error}") from error
        if not tokenizer.chat_template:
            raise self._error("has no chat template: choose an instruction-tuned model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.to(device).eval(), tokenizer

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[ChatReply]:
        """See :class:`safetydpo_kedro.prompts.chat.ChatModel`."""
        size = self._settings.batch_size
        for start in range(0, len(requests), size):
            yield from self._answer(requests[start : start + size])

    def _answer(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One batch."""
        import torch
        from transformers import GenerationConfig

        model, tokenizer = self._loaded
        inputs = tokenizer.apply_chat_template(
            [[message._asdict() for message in request.messages] for request in requests],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(model.device)
        ends = _end_tokens(model, tokenizer)
        config = GenerationConfig(
            do_sample=False,  # the processor samples; what is left is to take the largest
            max_new_tokens=self._settings.max_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.inference_mode():
            tokens = model.generate(
                **inputs, generation_config=config, logits_processor=self._sampling(requests)
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [
            ChatReply(request, text.strip(), "stop" if ends & set(row.tolist()) else "length")
            for request, text, row in zip(requests, texts, new, strict=True)
        ]

    def _sampling(self, requests: Sequence[ChatRequest]) -> Any:
        """Logits processors that sample every row with its own seed; none at temperature 0."""
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        settings = self._settings
        processors = LogitsProcessorList()
        if settings.temperature == 0:
            return processors
        processors.append(TemperatureLogitsWarper(float(settings.temperature or 1.0)))
        if settings.top_p is not None:
            processors.append(TopPLogitsWarper(settings.top_p))
        processors.append(_gumbel_noise([request.seed for request in requests]))
        return processors

    def _error(self, what: str) -> ChatError:
        file = f", file '{self._settings.gguf_file}'," if self._settings.gguf_file else ""
        return ChatError(
            f"language model '{self._settings.model}'{file} {what}; in the catalog, give "
            f"`language_model` a directory or hub name with safetensors weights, or a gguf_file"
        )

    def __repr__(self) -> str:
        return f"TransformersChat(model={self._settings.model!r})"


def _gumbel_noise(seeds: Sequence[int]) -> Any:
    """A logits processor: the largest of logits plus Gumbel noise is a sample of the softmax.

    Args:
        seeds: one for every row, so that a row is sampled alike in any batch.
    """
    import torch
    from torch import Tensor
    from transformers import LogitsProcessor

    class GumbelNoise(LogitsProcessor):
        def __init__(self) -> None:
            self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            """Add noise to ``scores``, ``[rows, vocabulary]``."""
            rows = [
                torch.empty(scores.shape[1]).exponential_(generator=generator).log_().neg_()
                for generator in self._generators
            ]
            return scores.float() + torch.stack(rows).to(scores.device)

    return GumbelNoise()


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end a reply; chat models often have more than one."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def _weight_sizes(directory: Path) -> str:
    """Cheap name of the weights of a model, which may have gigabytes."""
    files = [f for f in visible_files(directory) if f.suffix in (".safetensors", ".gguf")]
    return fingerprint([(f.relative_to(directory).as_posix(), f.stat().st_size) for f in files])
