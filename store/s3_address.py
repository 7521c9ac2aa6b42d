"""Where an S3 store is: what its URL says, and the URLs of its objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from manifests.errors import BadSetting
from store.keys import is_segment

FORM = "s3://bucket/prefix?endpoint=https://host&region=name"
MAX_PREFIX_LENGTH = 400
"""With the longest key behind it, an object's name stays below S3's 1,024 bytes."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_RULE = (
    "S3 takes 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or a digit at "
    "either end"
)
# What was meant as a bucket's name and may be shown: a password would come with a colon.
_SHOWN_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
# What botocore takes for one: an underscore, which some name services allow, is no part of a host.
_REGION = re.compile(r"(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?")
_DEFAULT_REGION = "us-east-1"
_AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket, a ``prefix`` in it (empty, or ending in a slash), and who serves it.

    Without ``endpoint`` it is AWS; without ``region`` the region that botocore's chain gives.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str | None

    @property
    def url(self) -> str:
        """The address in the form in which :func:`parse_address` reads it."""
        given = {"endpoint": self.endpoint, "region": self.region}
        query = urlencode({name: value for name, value in given.items() if value}, safe=":/")
        path = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{path}?{query}" if query else path

    @property
    def place(self) -> tuple[str, str, str]:
        """Who serves it, in one form of the many that name the same, then bucket and prefix.

        Upper case, a port that goes without saying and the region of AWS make no difference: there,
        a bucket's name is its own in all regions. Names of one host are not looked up.
        """
        return (
            _one_form(self.endpoint_in(region_or_default(self.region))),
            self.bucket,
            self.prefix,
        )

    @property
    def is_path_style(self) -> bool:
        """Whether the bucket stands in the path; a name with dots fits no certificate of AWS."""
        return self.endpoint is not None or "." in self.bucket

    def endpoint_in(self, region: str) -> str:
        """The URL of the service, without a slash at its end."""
        suffix = ".cn" if region.startswith("cn-") else ""
        return self.endpoint or f"https://s3.{region}.amazonaws.com{suffix}"

    def object_url(self, key: str, region: str) -> str:
        """The URL of an object; keys have no character that would need an escape."""
        endpoint = self.endpoint_in(region)
        if self.is_path_style:
            return f"{endpoint}/{self.bucket}/{self.prefix}{key}"
        scheme, host = endpoint.split("://")
        return f"{scheme}://{self.bucket}.{host}/{self.prefix}{key}"


def region_or_default(region: str | None) -> str:
    """``region``, or where S3 began; servers other than AWS rarely care."""
    return region or _DEFAULT_REGION


def parse_address(url: str) -> S3Address:
    """The address that ``url`` gives.

    Raises:
        BadSetting: it is not of the form :data:`FORM`. The message never repeats the URL, which
            may carry a password, but for what can be nothing else than a bucket's name.
    """
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise BadSetting(f"the store's URL is malformed; give {FORM}") from None
    if "@" in parts.netloc:
        raise BadSetting(
            "a store's URL carries no credentials; put them where AWS tools look for them "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role) and give " + FORM
        )
    if _BUCKET.fullmatch(parts.netloc) is None:
        is_shown = _SHOWN_BUCKET.fullmatch(parts.netloc) is not None
        found = f"{parts.netloc} is no name of a" if is_shown else "the store's URL names no"
        raise BadSetting(f"{found} bucket: {_BUCKET_RULE}; give {FORM}")
    prefix = parts.path.strip("/")
    if parts.fragment or len(prefix) > MAX_PREFIX_LENGTH or not _is_prefix(prefix):
        raise BadSetting(
            "the prefix in the store's URL is not made of letters, digits, '_', '.' and '-' "
            f"between slashes; give {FORM}"
        )
    options = dict(given)
    if len(options) < len(given) or not options.keys() <= {"endpoint", "region"}:
        raise BadSetting(
            "a store's URL has no other options than endpoint and region, each once; credentials "
            f"belong in the environment or a profile; give {FORM}"
        )
    endpoint, region = options.get("endpoint"), options.get("region")
    if region is not None and _REGION.fullmatch(region) is None:
        raise BadSetting(f"the region in the store's URL is not the name of one; give {FORM}")
    return S3Address(
        bucket=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=None if endpoint is None else _endpoint(endpoint),
        region=region,
    )


def _one_form(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    for domain in _AWS_DOMAINS:
        if host.endswith(f".{domain}"):
            return domain
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{host}:{port}{parts.path}"


def _is_prefix(prefix: str) -> bool:
    return prefix == "" or all(map(is_segment, prefix.split("/")))


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        parts, is_sound = urlsplit(""), False
    path = parts.path.rstrip("/")
    if (
        not is_sound
        or _HOST.fullmatch(parts.netloc) is None
        or parts.query
        or parts.fragment
        or not _is_prefix(path.removeprefix("/"))
    ):
        raise BadSetting(
            "the endpoint in the store's URL is not of the form http://host:port or https://host, "
            f"without credentials; give {FORM}"
        )
    return f"{parts.scheme}://{parts.netloc}{path}"
