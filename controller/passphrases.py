"""Where passphrases of private keys come from: a terminal, the environment or a file.

``GENCTL_KEY_PASSPHRASE`` holds it, or ``GENCTL_KEY_PASSPHRASE_FILE`` names a file of mode 0600
whose first line it is. Without either, a terminal is asked. Nothing here ends up in a message.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import click

from builder.keys import read_private
from manifests.errors import BadSetting

VARIABLE = "GENCTL_KEY_PASSPHRASE"
FILE_VARIABLE = "GENCTL_KEY_PASSPHRASE_FILE"


def given() -> str | None:
    """The passphrase that the environment gives, or ``None``.

    Raises:
        BadSetting: the file cannot be read, or can be read by others; or what is given is empty.
    """
    if VARIABLE in os.environ:
        return _not_empty(os.environ[VARIABLE], VARIABLE)
    if FILE_VARIABLE in os.environ:
        path = Path(os.environ[FILE_VARIABLE])
        if not path.exists():
            raise BadSetting(f"{FILE_VARIABLE} names {path}, which is not there; correct it")
        try:
            lines = read_private(path).decode().splitlines()
        except UnicodeDecodeError as error:
            raise BadSetting(f"the file that {FILE_VARIABLE} names is not text") from error
        return _not_empty(lines[0] if lines else "", f"the file that {FILE_VARIABLE} names")
    return None


def _not_empty(passphrase: str, where: str) -> str:
    if not passphrase:
        raise BadSetting(f"{where} holds no passphrase")
    return passphrase


def ask(name: str) -> str:
    """The passphrase of what ``name`` says; a terminal is asked once.

    Raises:
        BadSetting: there is none; or see :func:`given`.
    """
    found = given()
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise BadSetting(
            f"{name} is encrypted; set {VARIABLE} or {FILE_VARIABLE}, or run this on a terminal"
        )
    return _typed(name)


@functools.cache
def _typed(name: str) -> str:
    return str(click.prompt(f"Passphrase of {name}", hide_input=True, err=True))


def for_new_key(*, must_encrypt: bool) -> str | None:
    """What a new key file is encrypted with: what the environment gives, else what is typed.

    ``None``, for not at all, unless it must be.

    Raises:
        BadSetting: it must be encrypted, and there is no passphrase; or see :func:`given`.
    """
    found = given()
    if found is not None or not must_encrypt:
        return found
    if not sys.stdin.isatty():
        raise BadSetting(
            f"to encrypt the key, set {VARIABLE} or {FILE_VARIABLE}, or run this on a terminal"
        )
    return _typed_new()


@functools.cache
def _typed_new() -> str:
    """Asked once, for all the keys that a command makes."""
    return _not_empty(
        str(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)),
        "what was typed",
    )
