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

KEY_NAMES = ("root", "targets", "online")


@dataclass(frozen=True, slots=True)
class WriterKeys:
    """The signers of one shard's writer."""

    root: CryptoSigner
    targets: CryptoSigner
    online: CryptoSigner


def create_keys(folder: Path) -> None:
    """Make the key files that are missing in ``folder`` (Ed25519); existing ones are kept."""
    files.make_folder(folder, private=True)
    for name in KEY_NAMES:
        pem = CryptoSigner.generate_ed25519().private_bytes
        files.create_file(folder / f"{name}.pem", [pem], mode=0o600)


def load_keys(folder: Path) -> WriterKeys:
    """Load all keys.

    Raises:
        BadSetting: a key file is missing, unreadable as a key, or readable by others.
    """
    return WriterKeys(*(_load(folder / f"{name}.pem") for name in KEY_NAMES))


def _load(path: Path) -> CryptoSigner:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadSetting(f"{path} can be read by others; run `chmod 600` on it first")
        key = load_pem_private_key(path.read_bytes(), password=None)
        return CryptoSigner(key)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise BadSetting(f"{path} is not a usable private key: {error}") from error
