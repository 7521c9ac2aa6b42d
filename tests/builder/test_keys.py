"""Key files, references to keys, and what is said when they cannot be used: never a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
)
from tuf.api.metadata import Metadata, Role, Root, Timestamp

from builder.keys import (
    create_key,
    load_key_file,
    no_passphrase,
    public_bytes,
    public_path,
    read_public,
)
from builder.signers import KeyRing, SignerReference, sign
from manifests.errors import BadSetting, SignerUnavailable

SECRET = "correct horse battery staple"


def ask(name: str) -> str:
    return SECRET


def made(path: Path, passphrase: str | None = None) -> Key:
    return create_key(path, lambda: passphrase, ask)


def ring(folder: Path, **environ: str) -> KeyRing:
    return KeyRing(folder, environ, ask)


def root_naming(*keys: Key, threshold: int = 1) -> Root:
    root = Root()
    for key in keys:
        root.add_key(key, "targets")
    root.roles["targets"] = Role([key.keyid for key in keys], threshold)
    return root


def test_a_new_key_is_its_owners_alone_and_signs(tmp_path: Path) -> None:
    key = made(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    signer = load_key_file(tmp_path / "a", no_passphrase)
    assert read_public(public_path(tmp_path / "a")) == key == signer.public_key
    key.verify_signature(signer.sign(b"x"), b"x")


def test_an_existing_key_is_kept_and_its_public_part_made_good(tmp_path: Path) -> None:
    key = made(tmp_path / "a", SECRET)
    public_path(tmp_path / "a").unlink()
    assert made(tmp_path / "a") == key
    assert read_public(public_path(tmp_path / "a")) == key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o610])
def test_a_private_key_with_wider_permissions_is_refused(tmp_path: Path, mode: int) -> None:
    made(tmp_path / "a")
    (tmp_path / "a").chmod(mode)
    for use in (load_key_file, lambda path, _: made(path)):
        with pytest.raises(BadSetting, match="chmod 600"):
            use(tmp_path / "a", ask)


def test_an_encrypted_key_opens_with_its_passphrase_and_no_other(tmp_path: Path) -> None:
    key = made(tmp_path / "a", SECRET)
    assert b"ENCRYPTED" in (tmp_path / "a").read_bytes()
    assert load_key_file(tmp_path / "a", ask).public_key == key
    with pytest.raises(BadSetting, match="passphrase is not that of") as caught:
        load_key_file(tmp_path / "a", lambda _: "Tr0ub4dor&3")
    assert "Tr0ub4dor&3" not in str(caught.value)
    with pytest.raises(BadSetting, match="no passphrase is at hand"):
        load_key_file(tmp_path / "a", no_passphrase)


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_private_key_is_refused_without_showing_it(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a").chmod(0o600)
    with pytest.raises(BadSetting, match="not a usable private key"):
        load_key_file(tmp_path / "a", ask)


def test_a_missing_key_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="not there"):
        load_key_file(tmp_path / "a", ask)
    with pytest.raises(BadSetting, match="not a file"):
        load_key_file(tmp_path, ask)


def test_a_key_that_was_carried_away_is_not_made_anew(tmp_path: Path) -> None:
    key = made(tmp_path / "a")
    (tmp_path / "a").unlink()
    with pytest.raises(BadSetting, match="without its private part"):
        made(tmp_path / "a")
    assert read_public(public_path(tmp_path / "a")) == key


def test_a_swapped_key_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b")
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes())
    with pytest.raises(BadSetting, match="another key than"):
        load_key_file(tmp_path / "a", ask)


def test_a_public_part_cannot_take_the_id_of_another_key(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    document = json.loads(public_bytes(first))
    forged = json.dumps(document | {"keyid": second.keyid}, sort_keys=True, separators=(",", ":"))
    (tmp_path / "forged").write_text(forged)
    with pytest.raises(BadSetting, match="not its own"):
        read_public(tmp_path / "forged")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"\xff", b"null", b'{"keyid":1}'),
        b'{"keyid":"a","keytype":"ed25519","keyval":{},"scheme":"ed25519"}',
        b'{"keyid":"a","keytype":"ed25519","keyval":{"public":"zz"},"scheme":"ed25519","x":1}',
        b'{"keyid":"a","keytype":"none","keyval":{"public":"aa"},"scheme":"none"}',
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pub").write_bytes(content)
    with pytest.raises(BadSetting, match=r"a\.pub"):
        read_public(tmp_path / "a.pub")


def test_the_private_part_given_as_the_public_one_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a")
    with pytest.raises(BadSetting, match="not a public key"):
        read_public(tmp_path / "a")


def test_a_public_key_in_pem_is_what_a_key_service_gives(tmp_path: Path) -> None:
    public = generate_private_key(SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "kms.pem").write_bytes(pem)
    assert read_public(tmp_path / "kms.pem").scheme == "ecdsa-sha2-nistp256"


def test_an_environment_variable_holds_a_key(tmp_path: Path) -> None:
    key = made(tmp_path / "a", SECRET)
    pem = (tmp_path / "a").read_text()
    reference = SignerReference(uri="env:KEY")
    assert ring(tmp_path, KEY=pem).open(reference).public_key == key
    with pytest.raises(BadSetting, match="KEY is not set"):
        ring(tmp_path).open(reference)
    with pytest.raises(BadSetting, match="not a usable private key") as caught:
        ring(tmp_path, KEY=SECRET).open(reference)
    assert SECRET not in str(caught.value)


def test_a_reference_that_holds_another_key_than_it_says_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a")
    other = made(tmp_path / "b")
    with pytest.raises(BadSetting, match="as the settings say"):
        ring(tmp_path).open(SignerReference(uri="file:a", keyid=other.keyid))


def test_the_root_says_which_keys_sign_and_the_others_are_not_opened(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old"), made(tmp_path / "new", SECRET)
    references = [SignerReference(uri="file:old"), SignerReference(uri="file:new")]
    quiet = KeyRing(tmp_path, {}, no_passphrase)
    assert quiet.sign_as(root_naming(old), "targets", references)[0].public_key == old
    (tmp_path / "old").unlink()
    assert ring(tmp_path).sign_as(root_naming(new), "targets", references)[0].public_key == new
    with pytest.raises(BadSetting, match="old is not there"):
        ring(tmp_path).sign_as(root_naming(old), "targets", references)


def test_one_key_under_two_names_does_not_make_two_signers(tmp_path: Path) -> None:
    key, other = made(tmp_path / "a"), made(tmp_path / "b")
    (tmp_path / "copy").write_bytes((tmp_path / "a").read_bytes())
    (tmp_path / "copy").chmod(0o600)
    references = [SignerReference(uri="file:a"), SignerReference(uri="file:copy")]
    both = root_naming(key, other, threshold=2)
    with pytest.raises(BadSetting, match="asks for 2"):
        ring(tmp_path).sign_as(both, "targets", references)
    signers = ring(tmp_path).sign_as(both, "targets", [*references, SignerReference(uri="file:b")])
    assert {signer.public_key.keyid for signer in signers} == {key.keyid, other.keyid}


class Vault(Signer):
    """A key service in this process: it takes a secret, and may fail."""

    SCHEME = "testvault"
    keys: ClassVar[dict[str, CryptoSigner]] = {}
    is_down = False

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Vault:
        assert secrets_handler is not None
        assert public_key.scheme == "ecdsa-sha2-nistp256"
        name = priv_key_uri.partition(":")[2]
        secret = secrets_handler("pin")
        if cls.is_down:
            raise ConnectionError(f"could not log in with {secret}")
        if name not in cls.keys:
            raise ValueError(f"no {name} for {secret}")
        return cls(name)

    @property
    def public_key(self) -> Key:
        return self.keys[self.name].public_key

    def sign(self, payload: bytes) -> Signature:
        if self.is_down:
            raise ConnectionError(f"lost the session {SECRET}")
        return self.keys[self.name].sign(payload)


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> type[Vault]:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, Vault.SCHEME, Vault)
    monkeypatch.setattr(Vault, "keys", {"k": CryptoSigner.generate_ecdsa()})
    return Vault


def test_a_signer_uri_signs_through_securesystemslib(tmp_path: Path, vault: type[Vault]) -> None:
    key = vault.keys["k"].public_key
    reference = SignerReference(uri="testvault:k", keyid=key.keyid)
    (signer,) = ring(tmp_path).sign_as(root_naming(key), "targets", [reference])
    metadata = Metadata(Timestamp())
    sign(metadata, [signer])
    key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)


def test_a_key_service_that_is_away_is_asked_again_later(
    tmp_path: Path, vault: type[Vault], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vault.keys["k"].public_key
    reference = SignerReference(uri="testvault:k", keyid=key.keyid)
    signer = ring(tmp_path).open(reference, key)
    monkeypatch.setattr(Vault, "is_down", True)
    with pytest.raises(SignerUnavailable, match="testvault:k") as caught:
        ring(tmp_path).open(reference, key)
    assert SECRET not in str(caught.value)
    with pytest.raises(SignerUnavailable) as caught:
        sign(Metadata(Timestamp()), [signer])
    assert SECRET not in str(caught.value)


def test_a_signer_uri_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, vault: type[Vault]
) -> None:
    key = vault.keys["k"].public_key

    def refused(uri: str, words: str) -> None:
        with pytest.raises(BadSetting, match=words) as caught:
            ring(tmp_path).open(SignerReference(uri=uri, keyid=key.keyid), key)
        assert SECRET not in str(caught.value)

    refused("testvault:other", "not a signer that can be used")
    refused("nosuchscheme:k", "not a signer that can be used")
    refused("hv:key/1", r"pip install 'securesystemslib\[vault\]'")
    refused("file2:key", "write file:key instead")
    with pytest.raises(BadSetting, match="needs the id of its key"):
        ring(tmp_path).open(SignerReference(uri="testvault:k"))


@pytest.mark.parametrize("scheme", ["testvault", "nosuchscheme", "hv", "file2", "env"])
def test_what_the_query_of_a_signer_uri_says_is_not_shown(
    tmp_path: Path, vault: type[Vault], scheme: str
) -> None:
    key = vault.keys["k"].public_key
    name = "k" if scheme == "env" else "other"
    environ = {"k?secret=abc": "no PEM"}
    reference = SignerReference(uri=f"{scheme}:{name}?secret=abc", keyid=key.keyid)
    with pytest.raises(BadSetting) as caught:
        ring(tmp_path, **environ).open(reference, key)
    assert "secret" not in str(caught.value)
    assert "?…" in str(caught.value)
    root = root_naming(made(tmp_path / "elsewhere"))
    with pytest.raises(BadSetting) as caught:
        ring(tmp_path).sign_as(root, "targets", [reference])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o710, 0o701])
def test_a_folder_of_a_homes_keys_that_is_open_to_others_is_refused(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    made(folder / "a.pem")
    reference = SignerReference(uri="file:keys/a.pem")
    ring(tmp_path).open(reference)
    folder.chmod(mode)
    with pytest.raises(BadSetting, match=f"{folder} is open to others; run `chmod 700`"):
        ring(tmp_path).open(reference)
    ring(tmp_path).open(SignerReference(uri=f"file:{folder}/a.pem"))
