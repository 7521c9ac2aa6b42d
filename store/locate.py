"""From the URL an operator writes to the store it names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from durable.files import translated
from manifests.errors import BadSetting
from store.folder import FolderStore
from store.patience import DEFAULT_PATIENCE, Patience
from store.port import Store
from store.retrying import Backoff, RetryingStore
from store.s3_address import FORM, parse_address

# Two letters at least, as everywhere: one letter would be a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_SUPPORTED = f"a folder's path, file:///absolute/path or {FORM}"


def open_store(
    url: str,
    *,
    create: bool = False,
    backoff: Backoff | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Store:
    """The store that ``url`` names; ``create`` makes it first if it is not there.

    A bucket is never made: ``create`` asks whether it is there. With ``backoff`` an S3 store that
    does not answer is asked again; ``patience`` is how long a read of one may take.

    A relative path is taken from the working folder and made absolute at once. A path whose first
    part looks like a URL's scheme (``data:2024``) is written with ``./`` before it. Without
    ``create`` nothing is touched: an absent store shows at its first use.

    Raises:
        BadSetting: the URL is of an unknown kind or malformed, or names a file; or, with
            ``create``, a bucket that is not there or refused.
        DiskFull, DiskError: the store cannot be made.
        StoreUnavailable: with ``create``, the S3 server does not answer.
    """
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[1].lower() == "s3":
        return _bucket(url, backoff, patience, create=create)
    root = _folder(url)
    with translated(root):
        occupied = root.exists() and not root.is_dir()
    if occupied:
        raise BadSetting(f"{root} is a file; a store is a folder", store=url)
    return FolderStore.create(root) if create else FolderStore(root)


def _bucket(url: str, backoff: Backoff | None, patience: Patience, *, create: bool) -> Store:
    from store.s3 import S3Store  # noqa: PLC0415 - urllib3 is slow to import

    address = parse_address(url)
    if backoff is None:
        store = S3Store(address, patience=patience)
    else:
        store = S3Store(address, patience=patience, pause=backoff.pause)
    if create:
        store.check_bucket()
    return store if backoff is None else RetryingStore(store, backoff)


def _folder(url: str) -> Path:
    if not url or "\0" in url:
        raise BadSetting(f"nothing, or a NUL in it, names no store; give {_SUPPORTED}")
    scheme = _SCHEME.match(url)
    if scheme is None:
        return Path(url).absolute()
    if scheme[1].lower() != "file":
        # Not the whole URL, here and below: it may carry a password.
        raise BadSetting(
            f"a store cannot be a {scheme[1]}: URL; give {_SUPPORTED}", scheme=scheme[1]
        )
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise BadSetting(f"the store's file: URL is malformed; give {_SUPPORTED}") from None
    if (
        parts.netloc not in {"", "localhost"}
        or parts.query
        or parts.fragment
        or not path.startswith("/")
        or "\0" in path
    ):
        raise BadSetting("the store's file: URL is not of the form file:///absolute/path")
    return Path(path)
