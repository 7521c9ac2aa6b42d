"""From a reference in the settings to something that signs.

A reference says where the private part of one key is:

====================  ============================================================================
``file:PATH``         a key file (:mod:`builder.keys`); a relative path starts at the home
``env:NAME``          an environment variable that holds the PEM
any other ``SCHEME:`` a signer of securesystemslib (``awskms:``, ``gcpkms:``, ``azurekms:``,
                      ``hv:``, ``hsm:`` …), which needs the id of the key besides
====================  ============================================================================

Which of the keys at hand signs, the root of trust decides and nothing else: so a command that was
killed at any moment of a rotation, run again, signs with the keys that count then.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, T

from builder.keys import (
    TUF_ROLES,
    Passphrase,
    RoleName,
    load_key_file,
    load_pem,
    no_passphrase,
    public_path,
    read_public,
)
from manifests.canonical import Frozen
from manifests.errors import BadSetting, SignerUnavailable

# Its signers log what key services said; without a handler, Python would print that on stderr.
logging.getLogger("securesystemslib").addHandler(logging.NullHandler())

SignerUri = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*:\S*$", max_length=2000)]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

EXTRAS = {"hv": "vault", "awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms"}
"""By what name securesystemslib installs what a scheme needs, where that is not the scheme's."""


class SignerReference(Frozen):
    """Where the private part of one key is, and of which key where that is not in the file."""

    uri: SignerUri
    keyid: KeyId | None = None

    @property
    def scheme(self) -> str:
        """What stands before the colon."""
        return self.uri.partition(":")[0]

    @property
    def shown(self) -> str:
        """The reference for people: what a query says may be secret."""
        name, mark, _ = self.uri.partition("?")
        return f"{name}{mark}…" if mark else name

    @property
    def place(self) -> str:
        """What stands behind the colon."""
        return self.uri.partition(":")[2]


@dataclass(frozen=True)
class KeyRing:
    """Opens what references name; what was opened once is kept.

    Attributes:
        folder: where relative ``file:`` paths start.
        environ: the environment variables.
        passphrase: asked for the passphrase of a key file, or for what else a signer needs.
    """

    folder: Path
    environ: Mapping[str, str]
    passphrase: Passphrase
    _open: dict[SignerReference, Signer] = field(default_factory=dict)

    def path(self, reference: SignerReference) -> Path:
        """The key file of a ``file:`` reference."""
        return self.folder / reference.place

    def is_here(self, reference: SignerReference) -> bool:
        """Whether the private part can be looked for: a file that was carried away is not."""
        if reference.scheme == "file":
            return self.path(reference).exists()
        return reference.scheme != "env" or reference.place in self.environ

    def keyid(self, reference: SignerReference) -> str | None:
        """The id of a reference's key as far as it can be told without asking for a secret."""
        try:
            if reference.keyid is not None:
                return reference.keyid
            if reference.scheme == "file":
                path = self.path(reference)
                if public_path(path).exists():
                    return read_public(public_path(path)).keyid
                return load_key_file(path, no_passphrase).public_key.keyid
            if reference.scheme == "env" and reference.place in self.environ:
                pem = self.environ[reference.place].encode()
                return load_pem(pem, reference.shown, no_passphrase).public_key.keyid
        except BadSetting:
            return None  # opening it tells why
        return None

    def open(self, reference: SignerReference, key: Key | None = None) -> Signer:
        """What signs with the key that ``reference`` names.

        Args:
            reference: where the private part is.
            key: the public part, for a signer of securesystemslib.

        Raises:
            BadSetting: the key is missing, damaged, readable by others, another than was said, or
                its passphrase is wrong; or a library is missing.
            SignerUnavailable: a key service does not answer.
        """
        if reference not in self._open:
            signer = self._opened(reference, key)
            if reference.keyid not in {None, signer.public_key.keyid}:
                raise BadSetting(
                    f"{reference.shown} holds the key {signer.public_key.keyid[:16]}…, not "
                    f"{str(reference.keyid)[:16]}… as the settings say; put the right one back"
                )
            self._open[reference] = signer
        return self._open[reference]

    def _opened(self, reference: SignerReference, key: Key | None) -> Signer:
        if reference.scheme == "file":
            self._refuse_open_folder(reference)
            return load_key_file(self.path(reference), self.passphrase)
        if reference.scheme == "env":
            pem = self.environ.get(reference.place)
            if pem is None:
                raise BadSetting(
                    f"the environment variable {reference.place} is not set; it must hold the "
                    "private key as PEM"
                )
            return load_pem(pem.encode(), reference.shown, self.passphrase)
        if key is None:
            raise BadSetting(
                f"{reference.shown} needs the id of its key (`keyid`), and the root must name it"
            )
        return _from_library(reference, key, self.passphrase)

    def _refuse_open_folder(self, reference: SignerReference) -> None:
        """Refuse a folder of the home's keys that is not its owner's alone."""
        keys = self.path(reference).parent
        if Path(reference.place).is_absolute() or keys == self.folder or not keys.is_dir():
            return
        if stat.S_IMODE(keys.stat().st_mode) & 0o077:
            raise BadSetting(f"{keys} is open to others; run `chmod 700` on it first")

    def sign_as(
        self, root: Root, role: RoleName, references: Sequence[SignerReference]
    ) -> list[Signer]:
        """As many signers of ``role`` as ``root`` asks for; no other is opened.

        Raises:
            BadSetting: too few of the keys that the root names are at hand.
            SignerUnavailable: a key service does not answer.
        """
        named = root.roles[TUF_ROLES[role][0]]
        found: dict[str, Signer] = {}
        failure: BadSetting | None = None
        known = {reference: self.keyid(reference) for reference in references}
        for reference in sorted(references, key=lambda reference: known[reference] is None):
            keyid = known[reference]
            if len(found) == named.threshold or (keyid and keyid not in named.keyids):
                continue
            try:
                signer = self.open(reference, root.keys.get(keyid or ""))
            except BadSetting as error:
                failure = failure or error
                continue
            if signer.public_key.keyid in named.keyids:
                found[signer.public_key.keyid] = signer
        if len(found) < named.threshold:
            raise failure or BadSetting(
                f"root version {root.version} asks for {named.threshold} of the {role} keys "
                f"{', '.join(f'{keyid[:16]}…' for keyid in named.keyids)}, and "
                f"{len(found) or 'none'} of them is in "
                f"{', '.join(reference.shown for reference in references)}. Put the right key "
                f"back, or replace it: `genctl keys rotate HOME {role}`",
                role=role,
            )
        return list(found.values())


def _from_library(reference: SignerReference, key: Key, passphrase: Passphrase) -> Signer:
    if reference.scheme == "file2":
        shown = reference.shown.partition(":")[2]
        raise BadSetting(f"write file:{shown} instead of {reference.shown}")
    try:
        return Signer.from_priv_key_uri(reference.uri, key, passphrase)
    except BadSetting:
        raise
    except UnsupportedLibraryError as error:
        extra = EXTRAS.get(reference.scheme, reference.scheme)
        raise BadSetting(
            f"{reference.shown} needs a library that is not installed; run "
            f"`pip install 'securesystemslib[{extra}]'` in genctl's environment"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSetting(
            f"{reference.shown} is not a signer that can be used with the {key.scheme} key "
            f"{key.keyid[:16]}…; docs/format.md lists the forms"
        ) from error
    except Exception as error:
        raise unavailable(reference.shown, error) from error


def unavailable(what: str, error: BaseException) -> SignerUnavailable:
    """The error for a signer that failed; what its library says may hold secrets and stays out."""
    return SignerUnavailable(
        f"{what} did not sign ({type(error).__name__}); check that the service answers and that "
        "this process may use the key, then run the command again",
        signer=what,
    )


def sign(metadata: Metadata[T], signers: Sequence[Signer]) -> bytes:
    """Add a signature of each signer to ``metadata``; the bytes that they signed.

    Raises:
        SignerUnavailable: one did not sign.
    """
    payload = metadata.signed_bytes
    for signer in signers:
        try:
            signature = signer.sign(payload)
        except Exception as error:
            raise unavailable(
                f"the signer of key {signer.public_key.keyid[:16]}…", error
            ) from error
        metadata.signatures[signature.keyid] = signature
    return payload
