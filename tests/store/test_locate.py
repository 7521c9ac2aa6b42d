from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import BadSetting, StoreUnavailable
from store.locate import open_store


def test_a_path_names_a_folder_and_its_url_names_it_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a b%20c"), create=True)
    assert store.url == str(tmp_path / "a b%20c")
    assert store.put_if_absent("key", [b"x"])
    assert open_store(store.url).get("key", length=1) == b"x"


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("data/store").url == str(tmp_path / "data/store")
    assert open_store("./odd:name").url == str(tmp_path / "odd:name")


def test_a_file_url_names_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    for prefix in ("file://", "file://localhost", "FILE://"):
        assert open_store(f"{prefix}{tmp_path}/a%20b").url == str(tmp_path / "a b")


@pytest.mark.parametrize("url", ["http://host", "ftp:x", "gs://b"])
def test_other_schemes_are_refused_with_the_supported_ones(url: str) -> None:
    with pytest.raises(BadSetting, match=r"folder's path, file://.* or s3://"):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    ["gs://key:hunter2@bucket", "file://key:hunter2@/a", "file:///a?token=hunter2",
     "file://key:hunter2\u2100@host/a", "file://[hunter2/a", "gs://key:hunter2@bucket\0"],
)  # fmt: skip
def test_a_refused_url_keeps_its_password_to_itself(url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value) + repr(caught.value.facts)


@pytest.mark.parametrize(
    "url",
    ["", "a\0b", "file://host/path", "file:relative", "file:///a?b", "file:///a#b", "file:///%00",
     "file:///%ff", "file://[", "file://"],
)  # fmt: skip
def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(BadSetting):
        open_store(url)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadSetting, match="is a file"):
        open_store(str(tmp_path / "file"), create=True)


def test_opening_touches_nothing_and_creating_is_idempotent(tmp_path: Path) -> None:
    url = str(tmp_path / "deep/store")
    store = open_store(url)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreUnavailable):
        store.stat("key")
    assert open_store(url, create=True).put_if_absent("key", [b"x"])
    assert open_store(url, create=True).get("key", length=1) == b"x"
    assert store.get("key", length=1) == b"x"
