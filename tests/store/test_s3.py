"""The S3 store on a real server: what it proves, who is let in, and what it says to the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.errors import (
    BadSetting,
    ObjectMissing,
    SizeRefused,
    StoreUnavailable,
    StoreUnsafe,
)
from store.locate import open_store
from store.port import ObjectInfo, Store
from tests.store.contract import together, versioned
from tests.support.http_faults import FaultyServer, proxy_to, s3_error, without_conditions
from tests.support.s3_server import S3Server, free_ports, running_moto

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def proxy(s3: S3Server, s3_url: str) -> Iterator[FaultyServer]:
    with FaultyServer(proxy_to(s3.endpoint)) as running:
        yield running


def through(proxy: FaultyServer, s3: S3Server, url: str) -> str:
    return url.replace(s3.endpoint, proxy.url)


def keys(store: Store) -> list[str]:
    return [found.key for found in store.list("")]


def refused(store: Store) -> list[StoreUnavailable]:
    """What reading, listing and writing raise."""
    errors = []
    for act in (
        lambda: store.get("key", length=1),
        lambda: store.stat("key"),
        lambda: store.get_versioned("key", limit_bytes=1),
        lambda: list(store.list("")),
        lambda: store.put_if_absent("key", [b"x"]),
        lambda: store.compare_and_swap("key", b"x", None),
        lambda: store.delete("key"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            act()
        errors.append(caught.value)
    return errors


def test_an_object_may_lie_below_another(s3_url: str) -> None:
    store = open_store(s3_url, create=True)
    assert store.put_if_absent("data", [b"1"])
    assert store.put_if_absent("data/ten", [b"0123456789"])
    assert list(store.list("data")) == [ObjectInfo("data", 1), ObjectInfo("data/ten", 10)]


def test_a_listing_tells_when_each_object_was_written(s3_url: str) -> None:
    store = open_store(s3_url, create=True)
    assert store.put_if_absent("data", [b"1"])
    (found,) = store.list("")
    assert found.modified_at is not None


def test_a_listing_goes_on_over_many_pages_and_skips_what_is_no_key(
    s3: S3Server, s3_url: str
) -> None:
    bucket = s3_url.removeprefix("s3://").split("?")[0]
    names = [f"a/{number:04}" for number in range(1005)]
    client = s3.client
    for name in [*names, "a/folder/", "a/with space", "a/.hidden", "ab"]:
        client.put_object(Bucket=bucket, Key=f"stores/one/{name}", Body=b"x")
    client.put_object(Bucket=bucket, Key="stores/one-more/a/x", Body=b"x")
    store = open_store(s3_url.replace("?", "/stores/one?"))
    assert keys(store) == [*names, "ab"]
    assert [found.key for found in store.list("a/09")] == names[900:1000]


def test_the_proof_is_made_once_before_the_first_change_and_leaves_nothing(
    proxy: FaultyServer, s3: S3Server, s3_url: str
) -> None:
    store = open_store(through(proxy, s3, s3_url))
    assert store.stat("key") is None
    assert [asked.method for asked in proxy.seen] == ["GET"]
    assert together(3, lambda number: store.put_if_absent(f"key/{number}", [b"x"])) == [True] * 3
    assert sum("/probe/" in asked.path for asked in proxy.seen if asked.method == "DELETE") == 1
    seen = len(proxy.seen)
    store.delete("key/0")
    assert len(proxy.seen) == seen + 1
    assert keys(store) == ["key/1", "key/2"]


@pytest.fixture
def lax(s3_credentials: None, tmp_path: Path) -> Iterator[FaultyServer]:
    """A proxy that may change requests: moto's server looks at no signature."""
    with running_moto(tmp_path) as moto, FaultyServer(proxy_to(moto.endpoint)) as running:
        moto.bucket("bucket")
        yield running


def test_a_server_that_ignores_conditions_is_unsafe_and_nothing_is_written(
    lax: FaultyServer,
) -> None:
    safe = open_store(f"s3://bucket?endpoint={lax.url}")
    assert safe.put_if_absent("key", [b"first"])
    lax.origin = without_conditions(lax.origin)
    store = open_store(safe.url, create=True)
    for act in (
        lambda: store.put_if_absent("key", [b"second"]),
        lambda: store.compare_and_swap("other", b"second", None),
        lambda: store.delete("key"),
    ):
        with pytest.raises(StoreUnsafe) as caught:
            act()
        assert caught.value.runbook == "store-unsafe"
    assert keys(safe) == ["key"]
    assert store.get("key", length=9) == b"first"


def test_a_server_that_ignores_only_if_match_is_unsafe(lax: FaultyServer) -> None:
    origin, unsafe = lax.origin, without_conditions(lax.origin)
    lax.origin = lambda asked: (unsafe if "If-Match" in asked.headers else origin)(asked)
    with pytest.raises(StoreUnsafe, match="If-Match"):
        open_store(f"s3://bucket?endpoint={lax.url}").put_if_absent("key", [b"x"])


def test_a_server_that_does_not_know_conditions_is_unsafe(
    proxy: FaultyServer, s3: S3Server, s3_url: str
) -> None:
    proxy.plan(s3_error(501, "NotImplemented"))
    with pytest.raises(StoreUnsafe, match="does not know"):
        open_store(through(proxy, s3, s3_url)).put_if_absent("key", [b"x"])


def test_racing_processes_create_once_and_lose_no_swap(s3: S3Server, s3_url: str) -> None:
    program = """
import sys
from store.locate import open_store
store = open_store(sys.argv[1])
print(store.put_if_absent("created", [sys.argv[2].encode()]))
for _ in range(10):
    while True:
        found = store.get_versioned("counter", limit_bytes=100)
        number, version = (0, None) if found is None else (int(found.data), found.version)
        if store.compare_and_swap("counter", b"%d" % (number + 1), version):
            break
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, s3_url, str(number)],
            cwd=ROOT,
            env=os.environ | s3.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    printed = [each.communicate(timeout=120) for each in running]
    assert [each.returncode for each in running] == [0, 0, 0], printed
    store = open_store(s3_url)
    winner = [out.strip() for out, _ in printed].index("True")
    assert sorted(out.strip() for out, _ in printed) == ["False", "False", "True"]
    assert store.get("created", length=9) == str(winner).encode()
    assert versioned(store, "counter").data == b"30"
    assert keys(store) == ["counter", "created"]


def test_more_than_one_put_takes_is_refused_before_it_is_sent(
    proxy: FaultyServer, s3: S3Server, s3_url: str
) -> None:
    piece = memoryview(bytes(1 << 20))
    with pytest.raises(SizeRefused) as caught:
        open_store(through(proxy, s3, s3_url)).put_if_absent("key", [piece] * (5 << 10) + [piece])
    assert caught.value.facts["limit_bytes"] == 5 << 30
    assert proxy.seen == []


def test_a_bucket_that_is_not_there_is_named(s3: S3Server, s3_credentials: None) -> None:
    url = s3.url("never-made")
    with pytest.raises(BadSetting, match="no such bucket"):
        open_store(url, create=True)
    for error in refused(open_store(url)):
        assert "no such bucket" in error.message
        assert error.facts["refusal"] == "NoSuchBucket"
        assert error.runbook == "store-lost"


def test_wrong_credentials_are_named_and_not_shown(
    s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if s3.name == "moto":
        pytest.skip("moto's server lets everybody in")
    for name, words in (
        ("AWS_SECRET_ACCESS_KEY", "secret key is wrong"),
        ("AWS_ACCESS_KEY_ID", "does not know the access key"),
    ):
        monkeypatch.setenv(name, "hunter2hunter2")
        with pytest.raises(BadSetting, match=words):
            open_store(s3_url, create=True)
        store = open_store(s3_url)
        for error in refused(store):
            assert words in error.message
            assert "hunter2" not in error.message + repr(error.facts) + store.url + repr(store)


def test_a_secret_is_in_no_message_and_no_log_of_ours(
    s3_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    assert store.put_if_absent("key", [b"x"])
    with pytest.raises(ObjectMissing) as caught:
        store.get("absent", length=1)
    shown = store.url + repr(store) + repr(vars(store)) + str(caught.value) + caplog.text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in shown


def test_without_credentials_the_message_says_what_to_set(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadSetting, match="AWS_ACCESS_KEY_ID"):
        open_store(s3_url, create=True)
    for error in refused(open_store(s3_url)):
        assert "AWS_SECRET_ACCESS_KEY" in error.message
        assert error.runbook is None
    monkeypatch.setenv("AWS_PROFILE", "never-written")
    with pytest.raises(StoreUnavailable, match="ProfileNotFound"):
        open_store(s3_url).stat("key")


def test_a_server_that_does_not_run_is_unavailable(s3_credentials: None) -> None:
    [port] = free_ports(1)
    url = f"s3://bucket?endpoint=http://127.0.0.1:{port}"
    for error in refused(open_store(url)):
        assert "refusal" not in error.facts
    with pytest.raises(StoreUnavailable):
        open_store(url, create=True)


def test_a_node_that_only_reads_never_imports_boto3(s3: S3Server, s3_url: str) -> None:
    assert open_store(s3_url).put_if_absent("key", [b"value"])
    program = """
import json, sys
from store.locate import open_store
store = open_store(sys.argv[1])
assert store.get("key", length=9) == b"value"
assert store.stat("key").size_bytes == 5
print(json.dumps(sorted(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, s3_url],
        cwd=ROOT,
        env=os.environ | s3.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(run.stdout))
    assert "botocore.auth" in loaded
    assert "boto3" not in loaded
