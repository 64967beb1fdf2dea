"""CLIP image and text embeddings through open_clip.

Q16, CLIPScore and FID all read the same embeddings, so images are embedded once and the judges
work on arrays. Weights are safetensors only: a pickle can run code when it is opened.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize as unit_length

from safetydpo_kedro.artifacts import file_digest, write_atomically
from safetydpo_kedro.metrics.clip_preprocess import preprocess_images
from safetydpo_kedro.metrics.config import ClipConfig

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
_INPUT_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class ClipNetwork(Protocol):
    """What is asked of open_clip's networks, whichever class they are of.

    Attributes:
        visual: the image tower, with ``preprocess_cfg``.
    """

    visual: Any

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed preprocessed images ``[N, 3, H, W]`` as ``[N, D]``."""
        ...

    def encode_text(self, text: Tensor) -> Tensor:
        """Embed tokens, int64 ``[N, length]``, as ``[N, D]``."""
        ...

    def eval(self) -> Self:
        """As of :class:`torch.nn.Module`."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of :class:`torch.nn.Module`."""
        ...


class ClipModel:
    """An open_clip model that embeds batches of images and texts.

    Attributes:
        name: what was loaded, for reports (``ViT-L-14-quickgelu/openai`` or a directory).
        weights_sha256: SHA-256 of the weight file, 64 hex digits.
        preprocess: open_clip's preprocessing configuration (size, mean, std, interpolation, …).
    """

    def __init__(
        self,
        model: ClipNetwork,
        tokenizer: Any,
        *,
        name: str,
        weights_sha256: str,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 64,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.preprocess: dict[str, Any] = dict(model.visual.preprocess_cfg)
        self.name = name
        self.weights_sha256 = weights_sha256
        self.device = torch.device(device)
        self.dtype = _INPUT_DTYPES[precision]
        self.batch_size = batch_size

    @classmethod
    def from_config(cls, config: ClipConfig) -> ClipModel:
        """Load the model that ``config`` describes; see :class:`ClipConfig`."""
        options = config.model_dump(include={"device", "precision", "batch_size"})
        if config.directory is not None:
            return cls.from_directory(config.directory, **options)
        return cls.from_architecture(str(config.architecture), str(config.weights), **options)

    @classmethod
    def from_directory(
        cls, path: Path, *, device: str = "cpu", precision: str = "fp32", batch_size: int = 64
    ) -> ClipModel:
        """Load a local directory in open_clip format, as :func:`save_open_clip_directory` writes.

        Raises:
            ValueError: the configuration or the safetensors weights are missing, or the
                configuration asks for code or for another model.
        """
        import open_clip

        path = Path(path)
        if not (path / CONFIG_FILE).is_file():
            raise ValueError(f"no {CONFIG_FILE} in '{path}': not an open_clip model directory")
        # open_clip prefers these two names to .bin and .pth files, which are pickles.
        candidates = (WEIGHTS_FILE, "open_clip_pytorch_model.safetensors")
        weights = next((path / name for name in candidates if (path / name).is_file()), None)
        if weights is None:
            raise ValueError(f"no safetensors weights in '{path}', expected one of {candidates}")
        source = f"local-dir:{path}"
        tokenizer = _local_tokenizer(path)
        model = open_clip.create_model_from_pretrained(
            source, precision=precision, device=device, return_transform=False
        )
        return cls(
            model,
            tokenizer,
            name=path.name,
            weights_sha256=file_digest(weights),
            device=device,
            precision=precision,
            batch_size=batch_size,
        )

    @classmethod
    def from_architecture(
        cls,
        architecture: str,
        weights: str,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 64,
    ) -> ClipModel:
        """Load a named architecture with a pretrained tag or a local safetensors file.

        A tag is read from the local hub cache, or downloaded. OpenAI's weights need an
        architecture whose name ends in ``-quickgelu``.

        Raises:
            ValueError: unknown architecture or tag, unreachable weights, weights that are not
                safetensors, or an activation function that does not match the tag.
        """
        import open_clip

        file = _weights_file(architecture, weights)
        try:
            model = open_clip.create_model_from_pretrained(
                architecture,
                pretrained=weights,
                precision=precision,
                device=device,
                return_transform=False,
            )
        except RuntimeError as error:
            raise ValueError(
                f"weights '{weights}' do not fit CLIP architecture '{architecture}': {error}"
            ) from error
        return cls(
            model,
            open_clip.get_tokenizer(architecture),
            name=f"{architecture}/{Path(weights).name}",
            weights_sha256=file_digest(file),
            device=device,
            precision=precision,
            batch_size=batch_size,
        )

    @torch.inference_mode()
    def encode_images(
        self, images: NDArray[np.uint8], normalize: bool = True
    ) -> NDArray[np.float32]:
        """Embed images.

        Args:
            images: uint8 RGB, ``[N, H, W, 3]``.
            normalize: scale every embedding to length 1. Cosine-based judges do so themselves;
                Fréchet distances are usual on plain embeddings.

        Returns:
            float32 ``[N, D]``.
        """
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + self.batch_size]))
            batch = batch.to(self.device).permute(0, 3, 1, 2)
            pixels = preprocess_images(batch, self.preprocess).to(self.dtype)
            parts.append(self.model.encode_image(pixels).float())
        return self._gather(parts, normalize)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], normalize: bool = True) -> NDArray[np.float32]:
        """Embed texts; repeated texts are embedded once.

        Args:
            texts: N strings; longer ones than the context are cut.
            normalize: scale every embedding to length 1.

        Returns:
            float32 ``[N, D]``.
        """
        position = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        distinct = list(position)
        parts = []
        for start in range(0, len(distinct), self.batch_size):
            tokens = self.tokenizer(distinct[start : start + self.batch_size]).to(self.device)
            parts.append(self.model.encode_text(tokens).float())
        return self._gather(parts, normalize)[[position[text] for text in texts]]

    def _gather(self, parts: list[Tensor], normalize: bool) -> NDArray[np.float32]:
        if not parts:
            raise ValueError("nothing to embed: got 0 images or texts, expected at least 1")
        embeddings = torch.cat(parts)
        return (unit_length(embeddings, dim=-1) if normalize else embeddings).cpu().numpy()


def save_open_clip_directory(
    model: nn.Module, config: Mapping[str, Any], tokenizer_dir: Path, path: Path
) -> None:
    """Write a model as a directory that ``open_clip`` loads by ``local-dir:<path>``.

    The configuration is written last: a directory without it is incomplete, and no loader
    accepts it.

    Args:
        model: an open_clip ``CLIP`` built from ``config["model_cfg"]``.
        config: ``model_cfg`` (embed_dim, vision_cfg, text_cfg) and ``preprocess_cfg`` (mean, std,
            interpolation, resize_mode). ``text_cfg.hf_tokenizer_name`` is filled in: any name
            makes open_clip read the tokenizer from the directory itself.
        tokenizer_dir: directory of a transformers tokenizer (``tokenizer.json`` and
            ``tokenizer_config.json``).
        path: directory to write.

    Raises:
        ValueError: the configuration or the tokenizer is incomplete.
    """
    missing = {"model_cfg", "preprocess_cfg"} - set(config)
    if missing:
        raise ValueError(f"open_clip configuration lacks {sorted(missing)}, got {sorted(config)}")
    tokenizer_dir, path = Path(tokenizer_dir), Path(path)
    present = [name for name in TOKENIZER_FILES if (tokenizer_dir / name).is_file()]
    if not {"tokenizer.json", "tokenizer_config.json"} <= set(present):
        raise ValueError(
            f"'{tokenizer_dir}' is no transformers tokenizer: found {present}, needs "
            f"tokenizer.json and tokenizer_config.json"
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG_FILE).unlink(missing_ok=True)
    for name in present:
        with write_atomically(path / name) as temporary:
            shutil.copyfile(tokenizer_dir / name, temporary)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with write_atomically(path / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    content = json.loads(json.dumps(config))
    content["model_cfg"]["text_cfg"].setdefault("hf_tokenizer_name", "local")
    with write_atomically(path / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _local_tokenizer(path: Path) -> Any:
    """The tokenizer of a directory.

    Raises:
        ValueError: it is code, or the configuration would fetch a text encoder from the hub.
    """
    import open_clip

    config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    text = config.get("model_cfg", {}).get("text_cfg", {})
    if "hf_model_name" in text:
        raise ValueError(
            f"'{path / CONFIG_FILE}': text_cfg.hf_model_name = {text['hf_model_name']!r} names "
            f"another model on the hub, and nothing is fetched for a local one; bring a CLIP whose "
            f"text encoder is in its own weights"
        )
    # open_clip hands `tokenizer_kwargs` on to transformers, where this one would run code.
    options = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    try:
        return open_clip.get_tokenizer(f"local-dir:{path}", **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"the tokenizer in '{path}' is code, and no code that comes with weights is run; bring "
            f"a CLIP whose tokenizer is a {TOKENIZER_FILES[0]}"
        ) from None


def _weights_file(architecture: str, weights: str) -> Path:
    """Path of a local safetensors file, or of the one behind a pretrained tag."""
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    config = open_clip.get_model_config(architecture)
    if config is None:
        raise ValueError(
            f"unknown CLIP architecture '{architecture}'; open_clip.list_models() names them all"
        )
    tag = get_pretrained_cfg(architecture, weights)
    if not tag:
        path = Path(weights)
        if not path.is_file():
            tags = open_clip.list_pretrained_tags_by_model(architecture)
            raise ValueError(
                f"CLIP weights '{weights}' are neither a file nor a tag of '{architecture}' {tags}"
            )
    else:
        if bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
            raise ValueError(
                f"CLIP weights '{weights}' and architecture '{architecture}' differ in their "
                f"activation (quick_gelu); choose the name with, or without, '-quickgelu'"
            )
        try:
            path = Path(download_pretrained(tag))
        except Exception as error:
            raise ValueError(
                f"CLIP weights '{weights}' of '{architecture}' are not on this machine and cannot "
                f"be downloaded; put the safetensors file somewhere and give its path as 'weights'"
            ) from error
    if path.suffix != ".safetensors":
        raise ValueError(f"CLIP weights '{path}' are not safetensors; convert them first")
    return path
