"""What an S3 server's refusals mean to an operator, and what to do about each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from manifests.errors import DiskFull, GenctlError, ObjectMissing, StoreRefused, StoreUnavailable
from store.s3_address import S3Address

_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,60})</Code>")
_CREDENTIALS = (
    "check the credentials that AWS tools would use (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE, a role)"
)
_REGION = "it is in another region; give the right one as ?region=… in the store's URL"
_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it, or correct the store's URL",
    "InvalidAccessKeyId": f"it does not know the access key; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is wrong, or the region; {_CREDENTIALS}",
    "InvalidToken": f"the session token is wrong; {_CREDENTIALS}",
    "ExpiredToken": "the session token has expired; log in again",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's; set it right",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
_RUNBOOKS = {"NoSuchBucket": "store-lost"}
_FULL = {"QuotaExceeded", "XMinioStorageFull"}


def code_in(body: bytes) -> str:
    """The error code in the XML of an answer, or nothing."""
    found = _CODE.search(body)
    return found[1].decode() if found else ""


def refusal_error(
    address: S3Address, status: int, code: str, permission: str, key: str | None = None
) -> GenctlError:
    """The error for an answer with ``status`` and S3's ``code`` (may be empty).

    ``permission`` names what the request needs (``s3:GetObject``).
    """
    url = address.url
    about = "" if key is None else f" ({key})"
    if key is not None and (code == "NoSuchKey" or (status == 404 and not code)):
        return ObjectMissing(f"{url} has no object {key}", store=url, key=key)
    if code in _FULL or status == 507:
        return DiskFull(f"{url} is full{about}: the server says {code or status}", store=url)
    facts = {"store": url, "key": key, "status": status, "code": code}
    if status == 429 or status >= 500:
        return StoreUnavailable(
            f"{url} is failing or overloaded{about}: it answers {status} {code}; try again in a "
            "while",
            **facts,
        )
    advice = _ADVICE.get(code)
    if advice is None and status == 403:
        advice = (
            f"the credentials need the permission {permission} on the bucket and its objects (and "
            "s3:ListBucket, without which an absent object looks forbidden), and this machine's "
            f"clock must be right; {_CREDENTIALS}"
        )
    elif advice is None and 300 <= status < 400:
        advice = _REGION
    return StoreRefused(
        f"{url} refuses{about}: {advice or 'check what answers at the endpoint'} "
        f"({status} {code or 'without a code'})",
        **facts,
        refusal=code or str(status),
    ).with_runbook(_RUNBOOKS.get(code))


def status_and_code(error: Any) -> tuple[int, str]:
    """The HTTP status and S3's code in a ``botocore.exceptions.ClientError``."""
    response = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def translated(address: S3Address, permission: str) -> Iterator[None]:
    """Turn what boto3 raises into errors of genctl; an absent object is the block's own matter."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow to import

    try:
        yield
    except ClientError as error:
        status, code = status_and_code(error)
        raise refusal_error(address, status, code, permission) from error
    except BotoCoreError as error:
        raise StoreUnavailable(
            f"{address.url} cannot be reached ({type(error).__name__}); check the endpoint, the "
            "network and the certificates, then try again",
            store=address.url,
        ) from error
