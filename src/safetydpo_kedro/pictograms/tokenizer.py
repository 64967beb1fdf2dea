"""A CLIP tokenizer for the captions, trained offline."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def train_tokenizer(
    captions: Iterable[str], vocabulary_size: int, max_length: int
) -> CLIPTokenizer:
    """Byte-pair encoding in CLIP's conventions, with the end token as padding.

    The end token gets the highest id, because CLIP's text tower pools at the largest token id.

    Args:
        captions: training text.
        vocabulary_size: upper bound on the number of tokens, the two special tokens included.
        max_length: tokens per prompt, start and end included.
    """
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 2,
        # As special tokens, because the trainer numbers letters at word ends, and with them ties
        # between merges, in the order of a hash map: differently in every run.
        special_tokens=[c + end for end in ("", WORD_END) for c in sorted(ByteLevel.alphabet())],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    model = json.loads(backend.to_str())["model"]
    learned = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    tokens = [token for token in learned if token not in (START, END)] + [START, END]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge) for merge in model["merges"]],
        model_max_length=max_length,
    )
