"""Rules about what comes from outside: a hub model is pinned, and a secret is shown nowhere."""

from __future__ import annotations

import re

COMMIT = re.compile("[0-9a-f]{40}")
# User and password of an address: ``https://user:password@host``, ``postgresql://…``.
LOGIN = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
HIDDEN = "***"


def check_revision(hub_id: str | None, revision: str | None) -> None:
    """Refuse a hub id that may be another model tomorrow.

    A branch or a tag can be moved by whoever owns the repository, or has stolen it.

    Args:
        hub_id: ``owner/name``; None: nothing is fetched, so nothing is checked.
        revision: full hash of a commit of it.

    Raises:
        ValueError: the revision is not 40 hex digits.

    Example:
        >>> check_revision("owner/model", "main")
        Traceback (most recent call last):
        ValueError: hub id 'owner/model': revision must be a commit of 40 hex digits, got ...
    """
    if hub_id is None or COMMIT.fullmatch(revision or ""):
        return
    raise ValueError(
        f"hub id '{hub_id}': revision must be a commit of 40 hex digits, got {revision!r}; take "
        f"the one you have checked from the model's page ('Files and versions', 'History'), or "
        f"give a local directory"
    )


def without_secrets(text: str, *secrets: str | None) -> str:
    """A text for logs, errors and records: logins in addresses and known secrets are hidden.

    Example:
        >>> without_secrets("key k3y refused by https://me:pass@host/v1", "k3y")
        'key *** refused by https://***@host/v1'
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    return LOGIN.sub(rf"\g<scheme>{HIDDEN}@", text)


def has_login(address: str) -> bool:
    """Whether an address names a user or a password.

    Example:
        >>> has_login("http://localhost:8000/v1"), has_login("http://key@localhost/v1")
        (False, True)
    """
    return LOGIN.match(address) is not None
