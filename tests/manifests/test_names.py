import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.canonical import to_canonical
from manifests.errors import ManifestMalformed, UnsafeArtifactName
from manifests.generation import Artifact, parse_manifest, seal
from manifests.names import check_artifact_names, symbol_key, symbol_of
from tests.manifests import samples

UNSAFE = [
    "",
    ".",
    "..",
    "../up",
    "a/..",
    "../../etc/passwd",
    "/absolute",
    "a/",
    "a//b",
    "a/b/c",
    "nul\0l",
    "a\\b",
    "C:",
    "c:\\windows",
    "a\nb",
    "a\n",
    "a b",
    "-option",
    ".hidden",
    "a/.hidden",
    "~",
    "é",
    "e\u0301",
    "a\u202eb",
    "con",
    "CON",
    "nul.txt",
    "a/AUX.idx",
    "lpt1",
    "Com9.x",
    "x" * 201,
    "x" * 200 + "/" + "y" * 200,
]


@pytest.mark.parametrize("name", UNSAFE)
def test_row_24_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(UnsafeArtifactName) as caught:
        check_artifact_names(["lexical/meta.json", name])
    assert caught.value.facts["artifact"] == name


@pytest.mark.parametrize(
    "names",
    [
        ["a/b", "a/B"],
        ["a/b", "A/b"],
        ["a", "A"],
        ["a", "a"],
        ["folder", "folder/file"],
        ["folder/file", "FOLDER"],
    ],
)
def test_row_24_names_that_clash_are_refused(names: list[str]) -> None:
    with pytest.raises(UnsafeArtifactName):
        check_artifact_names(names)


def test_row_24_an_unsafe_name_is_refused_before_a_manifest_exists() -> None:
    evil: Artifact = samples.lexical().model_copy(update={"name": "../../outside"})
    with pytest.raises(UnsafeArtifactName):
        samples.body(artifacts=(evil,))


def test_row_24_an_unsafe_name_in_manifest_bytes_is_refused_by_name() -> None:
    data = parse_and_replace(b"lexical/meta.json", b"..xical/meta.json")
    with pytest.raises(UnsafeArtifactName):
        parse_manifest(data)


def test_artifacts_out_of_order_are_malformed() -> None:
    with pytest.raises(ValueError, match="not in the order of their names"):
        samples.body(artifacts=tuple(reversed(samples.ARTIFACTS)))
    data = parse_and_replace(b"heads/000000000000.heads", b"heads/900000000000.heads")
    with pytest.raises(ManifestMalformed, match="not in the order of their names"):
        parse_manifest(data)


def parse_and_replace(old: bytes, new: bytes) -> bytes:
    data = to_canonical(seal(samples.body()))
    assert data.count(old) == 1
    return data.replace(old, new)


def test_ordinary_names_are_accepted() -> None:
    check_artifact_names(
        [
            "lexical/meta.json",
            "lexical/0123abcd.idx",
            "vectors/000000000000.usearch",
            "console",
            "_",
        ]
    )


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_a_symbols_key_says_which_symbol_it_is(artifact: bytes, number: int) -> None:
    assert symbol_of(symbol_key(artifact.hex(), number)) == (artifact.hex(), number)


@pytest.mark.parametrize(
    "key",
    [
        f"symbols/aa/{'a' * 64}",
        f"symbols/aa/{'a' * 64}/1",
        f"symbols/aa/{'a' * 64}/001",
        f"symbols/aa/{'a' * 64}/1000",
        f"symbols/aa/{'a' * 64}/\u0661\u0661",
        f"symbols/aa/{'a' * 64}/11\n",
        f"symbols/ab/{'a' * 64}/11",
        f"symbols/AA/{'A' * 64}/11",
        f"symbols/aa/{'a' * 63}/11",
        f"targets/symbols/aa/{'a' * 64}/11",
        "metadata/timestamp.json",
        "",
    ],
)
def test_other_keys_are_no_symbols(key: str) -> None:
    assert symbol_of(key) is None


@given(st.text(max_size=20))
def test_row_24_what_is_accepted_stays_inside_its_folder(name: str) -> None:
    try:
        check_artifact_names([name])
    except UnsafeArtifactName:
        return
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith("/")
    assert all(part and not part.startswith((".", "-")) for part in name.split("/"))
