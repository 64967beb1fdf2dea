"""A third judge: any image classifier of transformers, from a local directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from safetydpo_kedro.artifacts import file_digest, fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MULTI_LABEL = "multi_label_classification"


class ImageClassifier:
    """An image classifier on batches of images.

    Args:
        model: ``...ForImageClassification`` of transformers.
        processor: its image processor, of torchvision.
        name: what was loaded, for reports.
        weights_sha256: SHA-256 of the weights, 64 hex digits.
        device: torch device.
        batch_size: images in one forward pass.

    Attributes:
        labels: what it tells apart, in the order of its outputs.
        multi_label: whether an image can have several labels; their probabilities come from
            sigmoids then, and from one softmax otherwise.

    Raises:
        ValueError: its outputs are no probabilities of distinct labels.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        name: str,
        weights_sha256: str,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        self.name = name
        self.weights_sha256 = weights_sha256
        self.device = torch.device(device)
        self.batch_size = batch_size
        config = model.config
        self.labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        self.multi_label = config.problem_type == MULTI_LABEL
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"image classifier '{name}' has labels twice: {list(self.labels)}")
        alone = len(self.labels) < 2 and not self.multi_label
        if alone or config.problem_type == "regression":
            raise ValueError(
                f"image classifier '{name}' has labels {list(self.labels)} and problem_type "
                f"'{config.problem_type}', which gives no probabilities; set problem_type to "
                f"'{MULTI_LABEL}' in its config.json if its outputs are logits of sigmoids"
            )
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._processor = processor

    @classmethod
    def from_directory(
        cls, path: Path, *, device: str = "cpu", batch_size: int = 32
    ) -> ImageClassifier:
        """Load a directory as ``save_pretrained`` writes it; safetensors only, no code from it.

        Args:
            path: directory with ``config.json``, ``preprocessor_config.json`` and the weights, in
                one file or in parts.
            device: torch device.
            batch_size: images in one forward pass.

        Raises:
            ValueError: files are missing, or they are not those of a whole image classifier.
        """
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        path = Path(path)
        _check_files(path)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = AutoImageProcessor.from_pretrained(path, backend="torchvision", **options)
            model, report = AutoModelForImageClassification.from_pretrained(
                path,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below, together with the rest
                **options,
            )
        except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"'{path}' is not an image classifier: {error}") from error
        # transformers would go on with random numbers where the file has none, and only warn.
        absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
        if absent:
            raise ValueError(
                f"'{path}' is not an image classifier: its weights lack {absent[:4]}, or have "
                f"them in another shape; bring a model that was trained to classify images"
            )
        return cls(
            model,
            processor,
            name=f"{model.config.model_type}/{path.name}",
            weights_sha256=_weights_digest(path),
            device=device,
            batch_size=batch_size,
        )

    @torch.inference_mode()
    def classify(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of all labels.

        Args:
            images: uint8 RGB, ``[N, H, W, 3]``, of any size.

        Returns:
            float64 ``[N, len(labels)]`` in [0, 1]; rows sum to 1 unless ``multi_label``.

        Raises:
            ValueError: the images are not of that form.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"expected uint8 RGB images [N, H, W, 3], got {images.dtype} {images.shape}"
            )
        probabilities = np.empty((len(images), len(self.labels)))
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = torch.from_numpy(np.ascontiguousarray(images[part])).to(self.device)
            # Said outright, because an image three pixels high or wide could be read either way.
            pixels = self._processor(
                batch.permute(0, 3, 1, 2), input_data_format="channels_first", return_tensors="pt"
            )
            logits = self._model(pixel_values=pixels["pixel_values"].to(self.device)).logits
            logits = logits.double()
            scores = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
            probabilities[part] = scores.cpu().numpy()
        return probabilities


def _check_files(path: Path) -> None:
    """Refuse a directory without whole safetensors weights, before transformers looks at it."""
    if not (path / "config.json").is_file():
        raise ValueError(f"'{path}' is not an image classifier: config.json is not there")
    if (path / "adapter_config.json").is_file():
        # transformers would load the base model that it names, from elsewhere.
        raise ValueError(f"'{path}' is an adapter; merge it into its model, and save that")
    if not any((path / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE)):
        raise ValueError(
            f"'{path}' has no safetensors weights, expected {WEIGHTS_FILE} or {INDEX_FILE}; "
            f"files of other kinds are pickles, which can run code, and are not read"
        )


def _weights_digest(path: Path) -> str:
    """Hash of the weights: of the one file, or over names and hashes of its parts."""
    if (path / WEIGHTS_FILE).is_file():
        return file_digest(path / WEIGHTS_FILE)
    index = json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))
    parts = sorted(set(index["weight_map"].values()))
    return fingerprint([(name, file_digest(path / name)) for name in parts])
