"""Credentials from botocore's usual chain, signatures made with them, and the boto3 client.

Everything is made at its first use: importing botocore takes a tenth of a second, boto3's client
as long again, and a node that only reads never needs the client.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from manifests.errors import StoreRefused
from store.s3_address import S3Address, region_or_default

if TYPE_CHECKING:
    from botocore.credentials import Credentials

CONNECT_TIMEOUT_S = 10
SILENCE_TIMEOUT_S = 60
CONNECTIONS_KEPT = 32


class S3Session:
    """One process's access to the store at ``address``; safe among threads.

    Methods raise ``StoreRefused`` when there are no credentials, or none that can be had.
    """

    def __init__(self, address: S3Address) -> None:
        self._address = address
        self._lock = threading.RLock()
        self._session: Any = None
        self._credentials: Credentials | None = None
        self._client: Any = None
        self._region = ""

    @property
    def region(self) -> str:
        """The URL's region, or the one of the environment or profile."""
        self._open()
        return self._region

    @property
    def ca_bundle(self) -> str:
        """The file of trusted certificates: the one set for AWS tools, or the one they bring.

        It takes no credentials, but a profile that is named must exist.
        """
        from botocore.httpsession import get_cert_path  # noqa: PLC0415 - slow to import

        chosen = self._configured("ca_bundle")
        return str(chosen or os.environ.get("REQUESTS_CA_BUNDLE") or get_cert_path(True))

    def signed_headers(self, url: str) -> dict[str, str]:
        """The headers that make a GET of ``url`` ours; good for some minutes."""
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - slow to import
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - slow to import
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to import

        credentials = self._open()
        request = AWSRequest(method="GET", url=url)
        try:
            # Frozen: a refresh in another thread must not change them half-way.
            frozen = credentials.get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
        except BotoCoreError as error:
            raise self._no_credentials(error) from error
        return dict(request.headers.items())

    @property
    def client(self) -> Any:
        """The boto3 client for everything that is not a bulk read; it never retries."""
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> Any:
        import boto3.session  # noqa: PLC0415 - slow to import
        from botocore.config import Config  # noqa: PLC0415 - slow to import

        self._open()
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if self._address.is_path_style else "virtual"},
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=SILENCE_TIMEOUT_S,
            max_pool_connections=CONNECTIONS_KEPT,
            # The signature covers the body's SHA-256, which the server checks.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = boto3.session.Session(botocore_session=self._session).client(
            "s3",
            region_name=self._region,
            endpoint_url=self._address.endpoint_in(self._region),
            verify=self.ca_bundle,
            config=config,
        )
        client.meta.events.register("before-call.s3", _refuse_redirection)
        return client

    def _configured(self, name: str) -> Any:
        """A setting of the environment or the profile."""
        import botocore.session  # noqa: PLC0415 - slow to import
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to import

        with self._lock:
            try:
                if self._session is None:
                    self._session = botocore.session.Session()
                return self._session.get_config_variable(name)
            except BotoCoreError as error:
                raise self._no_credentials(error) from error

    def _open(self) -> Credentials:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to import

        with self._lock:
            if self._credentials is not None:
                return self._credentials
            try:
                region = self._configured("region")
                found = self._session.get_credentials()
            except BotoCoreError as error:
                raise self._no_credentials(error) from error
            if found is None:
                raise self._no_credentials(None)
            self._region = region_or_default(self._address.region or region)
            self._credentials = found
            return found

    def _no_credentials(self, error: Exception | None) -> StoreRefused:
        # Only the kind of failure: the text may be what a credential process printed.
        why = "there are none" if error is None else type(error).__name__
        return StoreRefused(
            f"no credentials for {self._address.url} ({why}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
            store=self._address.url,
            refusal="NoCredentials",
        )


def _refuse_redirection(params: Any, **_: object) -> None:
    """Mark the request as redirected already.

    botocore would ask the server for the bucket's region, without end if that is redirected too.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True
