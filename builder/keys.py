"""The writer's keys: made once, kept as PKCS#8 PEM files that only their owner can read.

Three roles, three keys: ``root`` (trusts the others; belongs offline), ``targets`` (the writer's,
signs the control record) and ``online`` (signs snapshot and timestamp).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from durable import files
from manifests.errors import BadSetting

ROOT, TARGETS, ONLINE = "root", "targets", "online"


@dataclass(frozen=True, slots=True)
class WriterKeys:
    """What the writer signs with every day; the root key is not among them."""

    targets: CryptoSigner
    online: CryptoSigner


def create_keys(folder: Path) -> None:
    """Make the three key files (Ed25519); those that an interrupted call left are kept."""
    files.make_folder(folder, private=True)
    for name in (ROOT, TARGETS, ONLINE):
        pem = CryptoSigner.generate_ed25519().private_bytes
        files.create_file(folder / f"{name}.pem", [pem], mode=0o600)


def has_keys(folder: Path) -> bool:
    """Whether the keys that publishing takes were made in ``folder``."""
    return all((folder / f"{name}.pem").exists() for name in (TARGETS, ONLINE))


def load_keys(folder: Path) -> WriterKeys:
    """Load the keys that publishing takes.

    Raises:
        BadSetting: a key file is missing, unreadable as a key, or readable by others.
    """
    return WriterKeys(load_key(folder, TARGETS), load_key(folder, ONLINE))


def load_key(folder: Path, name: str) -> CryptoSigner:
    """Load one key.

    Raises:
        BadSetting: see :func:`load_keys`.
    """
    path = folder / f"{name}.pem"
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadSetting(f"{path} can be read by others; run `chmod 600` on it first")
        key = load_pem_private_key(path.read_bytes(), password=None)
        return CryptoSigner(key)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BadSetting(f"{path} is not a usable private key: {error}") from error
