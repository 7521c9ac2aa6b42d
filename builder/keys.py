"""Keys as files: private parts that only their owner can read, and public parts beside them.

A private part is a PKCS#8 PEM file of mode 0600, encrypted if a passphrase was given. Its public
part is ``FILE.pub``: canonical JSON with ``keyid``, ``keytype``, ``scheme`` and ``keyval`` as in
TUF metadata. A ``keyid`` is always the SHA-256 of the other three in OLPC canonical JSON, so no
file can give a key the name of another.

A home has three roles: ``root`` (trusts the others; belongs offline), ``targets`` (the writer's,
signs the control record) and ``online`` (signs snapshot and timestamp).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from durable import files
from manifests.canonical import canonical_bytes, parse_canonical
from manifests.errors import BadSetting, ManifestMalformed

ROOT: Literal["root"] = "root"
TARGETS: Literal["targets"] = "targets"
ONLINE: Literal["online"] = "online"
RoleName = Literal["root", "targets", "online"]
TUF_ROLES: dict[RoleName, tuple[str, ...]] = {
    ROOT: (Root.type,),
    TARGETS: (Targets.type,),
    ONLINE: (Snapshot.type, Timestamp.type),
}
"""What the keys of each role sign."""

PRIVATE_MODE = 0o600
MAX_KEY_FILE_BYTES = 64 * 1024

Passphrase = Callable[[str], str]
"""Told the name of a key, gives its passphrase; raises ``BadSetting`` where none is to be had."""


def public_path(path: Path) -> Path:
    """Where the public part of the private key in ``path`` is."""
    return path.with_name(f"{path.name}.pub")


def create_key(path: Path, passphrase: Callable[[], str | None], ask: Passphrase) -> Key:
    """Make a key file (Ed25519) and its public part; what is there already is kept.

    Args:
        path: the private part's file.
        passphrase: gives what a new file is encrypted with, or ``None`` for not at all.
        ask: gives the passphrase of a file that an interrupted call left.

    Raises:
        BadSetting: there is a file that cannot be used; see :func:`load_key_file`.
        DiskFull, DiskError: the disk refuses.
    """
    if not path.exists():
        if public_path(path).exists():
            raise BadSetting(
                f"{public_path(path)} is there without its private part; put that back as {path}, "
                "or choose another name"
            )
        signer = CryptoSigner.generate_ed25519()
        if files.create_file(path, [_pem(signer, passphrase())], mode=PRIVATE_MODE):
            files.create_file(public_path(path), [public_bytes(signer.public_key)])
            return signer.public_key
    read_private(path)
    if public_path(path).exists():
        return read_public(public_path(path))
    key = load_key_file(path, ask).public_key
    files.create_file(public_path(path), [public_bytes(key)])
    return key


def _pem(signer: CryptoSigner, passphrase: str | None) -> bytes:
    if passphrase is None:
        return signer.private_bytes
    key = load_pem_private_key(signer.private_bytes, password=None)
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
    )


def load_key_file(path: Path, ask: Passphrase) -> CryptoSigner:
    """The key in ``path``.

    Raises:
        BadSetting: the file is missing, no key, or readable by others; the passphrase is wrong; or
            it holds another key than the public part beside it.
    """
    signer = load_pem(read_private(path), str(path), ask)
    public = public_path(path)
    if public.exists() and read_public(public).keyid != signer.public_key.keyid:
        raise BadSetting(
            f"{path} holds another key than {public} says; put the right one back, or remove "
            f"{public} if it is the wrong one"
        )
    return signer


def no_passphrase(name: str) -> str:
    """For callers that have none.

    Raises:
        BadSetting: always.
    """
    raise BadSetting(f"{name} is encrypted, and no passphrase is at hand")


def read_private(path: Path) -> bytes:
    """The bytes of a small file that must be its owner's alone.

    Raises:
        BadSetting: it is missing, no plain file, too long, or readable by others.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadSetting(f"{path} is not a file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise BadSetting(f"{path} can be read by others; run `chmod 600` on it first")
        if found.st_size > MAX_KEY_FILE_BYTES:
            raise BadSetting(f"{path} is too long to be what it should be")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadSetting(
            f"{path} is not there; put it back, or replace the key: `genctl keys rotate`"
        ) from error
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}") from error


def is_encrypted(path: Path) -> bool:
    """Whether a key file takes a passphrase; one that is missing or damaged does not.

    Raises:
        BadSetting: see :func:`read_private`.
    """
    if not path.exists():
        return False
    try:
        load_pem_private_key(read_private(path), password=None)
    except TypeError:  # so the library says that it is encrypted
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return False


def load_pem(pem: bytes, name: str, ask: Passphrase) -> CryptoSigner:
    """The key in a PKCS#8 PEM text; ``ask`` is called if it is encrypted.

    Raises:
        BadSetting: it is no key of a supported kind, or the passphrase is wrong.
    """
    try:
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:  # so the library says that it is encrypted
            passphrase = ask(name).encode()
            try:
                key = load_pem_private_key(pem, password=passphrase)
            except ValueError as error:
                raise BadSetting(f"the passphrase is not that of {name}; try another") from error
        return CryptoSigner(key)
    except (ValueError, UnsupportedAlgorithm, SigningError) as error:
        raise BadSetting(
            f"{name} is not a usable private key; it takes PKCS#8 PEM of an Ed25519, ECDSA or RSA "
            "key"
        ) from error


def public_bytes(key: Key) -> bytes:
    """The content of a public part's file."""
    return canonical_bytes({"keyid": key.keyid, **key.to_dict()}) + b"\n"


def read_public(path: Path) -> Key:
    """A public key from a file: JSON as :func:`public_bytes` makes it, or PEM from a key service.

    Raises:
        BadSetting: it cannot be read, is neither, or has a ``keyid`` that is not its own.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_KEY_FILE_BYTES:
            if not path.exists():
                raise BadSetting(
                    f"{path} is not there; take the file FILE.pub that `genctl keys init FILE` made"
                )
            raise BadSetting(f"{path} is not a public key's file")
        data = path.read_bytes()
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}") from error
    try:
        if data.startswith(b"-----BEGIN"):
            return SSlibKey.from_crypto(load_pem_public_key(data))
        document = parse_canonical(data.rstrip(b"\n"), str(path))
        return checked_key(document.pop("keyid"), document)
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(UnsupportedAlgorithm, SigningError, ManifestMalformed),
    ) as error:
        raise BadSetting(
            f"{path} is not a public key; take the file FILE.pub that `genctl keys init FILE` made"
        ) from error


def checked_key(keyid: str, document: dict[str, Any]) -> Key:
    """The key that ``document`` describes in TUF's form.

    Raises:
        BadSetting: ``keyid`` is not the one that the key has.
        ValueError, KeyError, TypeError: it describes none.
    """
    if set(document) != {"keytype", "scheme", "keyval"} or set(document["keyval"]) != {"public"}:
        raise ValueError("not the fields of a public key")
    key = Key.from_dict(keyid, dict(document))
    if keyid != keyid_of(key):
        raise BadSetting(f"a key is given the id {str(keyid)[:64]!r}, which is not its own")
    return key


def keyid_of(key: Key) -> str:
    """The id that a key has: SHA-256 over its kind and value, so equal keys have equal ids."""
    described = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
    return hashlib.sha256((encode_canonical(described) or "").encode()).hexdigest()
