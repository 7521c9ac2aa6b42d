from __future__ import annotations

import pytest

from manifests.errors import BadSetting
from store.locate import open_store
from store.s3_address import S3Address, parse_address
from store.s3_session import S3Session

OWN = "endpoint=http://host:7480"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket", S3Address("bucket", "", None, None)),
        ("s3://bucket/", S3Address("bucket", "", None, None)),
        (f"s3://bucket/a/b?{OWN}", S3Address("bucket", "a/b/", "http://host:7480", None)),
        (
            "s3://my.bucket/a/?region=eu-west-1&endpoint=https%3A%2F%2Fhost%2Fs3%2F",
            S3Address("my.bucket", "a/", "https://host/s3", "eu-west-1"),
        ),
        ("S3://bucket?endpoint=http://[::1]:80", S3Address("bucket", "", "http://[::1]:80", None)),
    ],
)
def test_a_url_gives_an_address_and_the_address_a_url(url: str, address: S3Address) -> None:
    assert parse_address(url) == address
    assert parse_address(address.url) == address
    assert open_store(url).url == address.url


@pytest.mark.parametrize(
    ("url", "where"),
    [
        (f"s3://bucket/a?{OWN}", "http://host:7480/bucket/a/key/x"),
        ("s3://bucket/a", "https://bucket.s3.eu-west-1.amazonaws.com/a/key/x"),
        ("s3://my.bucket", "https://s3.eu-west-1.amazonaws.com/my.bucket/key/x"),
    ],
)
def test_objects_are_where_the_server_expects_them(url: str, where: str) -> None:
    assert parse_address(url).object_url("key/x", "eu-west-1") == where


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("s3://bucket?endpoint=http://localhost", "s3://bucket?endpoint=http://localhost:80/"),
        ("s3://bucket?endpoint=https://host", "S3://bucket/?endpoint=HTTPS://HOST:443"),
        (
            "s3://bucket/p?endpoint=http://host:7480/s3",
            "s3://bucket/p/?endpoint=http://Host:7480/s3/",
        ),
        ("s3://bucket?endpoint=http://host&region=a", "s3://bucket?endpoint=http://host&region=b"),
        ("s3://bucket?endpoint=http://[::1]", "s3://bucket?endpoint=http://[::1]:80"),
        ("s3://bucket", "s3://bucket?region=eu-west-1"),
        ("s3://bucket", "s3://bucket?endpoint=https://s3.eu-west-1.amazonaws.com&region=eu-west-1"),
        (
            "s3://bucket?region=cn-north-1",
            "s3://bucket?endpoint=https://s3.cn-north-1.amazonaws.com.cn",
        ),
    ],
)
def test_one_place_has_many_urls(first: str, second: str) -> None:
    assert parse_address(first).place == parse_address(second).place


def test_different_places_stay_different() -> None:
    urls = [
        "s3://bucket",
        "s3://another",
        "s3://bucket/p",
        "s3://bucket?region=cn-north-1",
        "s3://bucket?endpoint=http://host",
        "s3://bucket?endpoint=http://host:7480",
        "s3://bucket?endpoint=https://host",
        "s3://bucket?endpoint=http://host/s3",
        "s3://bucket?endpoint=http://host/S3",
        "s3://bucket?endpoint=http://other",
    ]
    assert len({parse_address(url).place for url in urls}) == len(urls)


def test_china_has_a_domain_of_its_own() -> None:
    address = parse_address("s3://bucket")
    assert address.endpoint_in("cn-north-1") == "https://s3.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket",
        "s3://hunter2@bucket/prefix",
        "s3://bucket?access_key=a&secret_key=hunter2",
        "s3://bucket?hunter2",
        "s3://bucket?hunter2=",
        "s3://bucket?region=hunter2%20",
        "s3://bucket?endpoint=http://key:hunter2@host",
        "s3://bucket?endpoint=http://host?hunter2",
        "s3://bucket?endpoint=http://host#hunter2",
        "s3://bucket?endpoint=ftp://hunter2",
        "s3://bucket?endpoint=hunter2",
        "s3://bucket?endpoint=http://hunter2:port",
        "s3://bucket?endpoint=http://",
        "s3://bucket?endpoint=http://ho st",
        "s3://bucket?endpoint=http://hunter2_host:80",
        "s3://bucket?endpoint=http://hunter2:0",
        "s3://bucket?endpoint=http://hunter2:99999",
        "s3://bucket?region=2",
        "s3://bucket?endpoint=http://host/../hunter2",
        "s3://bucket?endpoint=http://a&endpoint=http://hunter2",
        "s3://bucket?region=a&region=hunter2",
        "s3://bucket#hunter2",
        "s3://bucket/../hunter2",
        "s3://bucket//hunter2/.hidden",
        "s3://bucket/a%20hunter2",
        "s3://bucket/" + "/".join(["hunter2" * 20] * 3),
        "s3://",
        "s3:bucket",
        "s3:///prefix",
        "s3://key:hunter2",
        "s3://key:Hunter2/prefix",
        "s3://b",
        "s3://[hunter2",
        "s3://bucket:80",
    ],
)
def test_other_urls_are_refused_and_none_is_repeated(url: str) -> None:
    with pytest.raises(BadSetting, match="s3://bucket/prefix") as caught:
        open_store(url)
    shown = str(caught.value) + repr(caught.value.facts)
    assert "hunter2" not in shown.lower()
    # Nor may a traceback show it.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["b1", "Upper_Case", "under_score", ".dot", "dash-", "a" * 64])
def test_a_bucket_that_s3_would_not_accept_is_named_with_the_rule(name: str) -> None:
    with pytest.raises(BadSetting, match="3 to 63 lower-case letters, digits, dots") as caught:
        parse_address(f"s3://{name}/prefix?{OWN}")
    assert caught.value.message.startswith(f"{name} is no name of a bucket: ")


@pytest.mark.parametrize(
    "host", ["host", "127.0.0.1:7480", "[::1]:80", "a-b.c3.example.org:9000", "host/s3/v1"]
)
def test_boto3_takes_every_endpoint_that_is_accepted(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    address = parse_address(f"s3://bucket?endpoint=https://{host}&region=eu-west-1")
    assert S3Session(address).client.meta.endpoint_url == f"https://{host}"
