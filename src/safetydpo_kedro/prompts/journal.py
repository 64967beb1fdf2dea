"""A file of replies, so that an interrupted writing goes on where it was."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from safetydpo_kedro.progress import progress_bar
from safetydpo_kedro.prompts.chat import ChatError, ChatModel, ChatReply, ChatRequest
from safetydpo_kedro.prompts.withhold import withhold
from safetydpo_kedro.write_errors import explained

logger = logging.getLogger(__name__)


class ReplyJournal:
    """Appends every reply to a file of JSON lines as soon as it comes.

    A line holds the key of the request (a hash, not its text), the reply without what is
    excluded, and why it ended. A line that is torn, because the writing was killed, is ignored.

    Args:
        path: of the file; it and its folder are made when the first reply comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def complete(
        self, model: ChatModel, requests: Sequence[ChatRequest], task: str = "replies"
    ) -> list[ChatReply]:
        """Answer requests from the file, and by the model where the file has no reply.

        Args:
            model: asked for what is not there.
            requests: must differ from each other.
            task: what a progress bar is named.

        Returns:
            Replies in the order of the requests, without what is excluded.

        Raises:
            ChatError: the model does not answer; what it has answered is in the file.
        """
        keys = [request.key(model.identity) for request in requests]
        replies = self._read()
        missing = [r for r, key in zip(requests, keys, strict=True) if key not in replies]
        known = len(requests) - len(missing)
        if known:
            logger.info("%s: %d of %d replies are in %s", task, known, len(requests), self.path)
        with progress_bar(total=len(requests), initial=known, desc=task, leave=False) as progress:
            try:
                for reply in model.complete(missing) if missing else ():
                    key = reply.request.key(model.identity)
                    replies[key] = self._append(key, reply)
                    progress.update()
            except ChatError as error:
                raise ChatError(
                    f"{error}. {progress.n} of {len(requests)} replies of '{task}' are kept in "
                    f"{self.path}: run again to go on from there"
                ) from error
        return [
            ChatReply(request, *replies[key]) for request, key in zip(requests, keys, strict=True)
        ]

    def _read(self) -> dict[str, tuple[str, str]]:
        """Key → text and finish reason."""
        if not self.path.is_file():
            return {}
        replies: dict[str, tuple[str, str]] = {}
        torn = 0
        for line in self.path.read_bytes().splitlines():
            try:
                record = json.loads(line)
                key, *reply = (record[name] for name in ("key", "text", "finish_reason"))
            except (ValueError, KeyError, TypeError, RecursionError):
                torn += 1
                continue
            if all(isinstance(text, str) for text in (key, *reply)):
                replies[key] = tuple(reply)
            else:
                torn += 1
        if torn:
            logger.warning("%s: %d broken lines are ignored", self.path, torn)
        return replies

    def _append(self, key: str, reply: ChatReply) -> tuple[str, str]:
        """Write one line to the disk; text and finish reason as they are written."""
        text = withhold(reply.text, reply.request.category, reply.request.about)
        record = {"key": key, "text": text, "finish_reason": reply.finish_reason}
        with explained(self.path), self._opened() as file:
            file.write((_line_break(file) + json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        return text, reply.finish_reason

    def _opened(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.open("ab+")


def _line_break(file: BinaryIO) -> str:
    """A line break if the last line is torn, so that the next one is not lost with it."""
    if file.seek(0, os.SEEK_END) == 0:
        return ""
    file.seek(-1, os.SEEK_END)
    return "" if file.read(1) == b"\n" else "\n"
