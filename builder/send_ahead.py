"""Sending the symbols of artifacts that no record names yet, so that a publish need not."""

from __future__ import annotations

from collections.abc import Sequence

from builder.publish import Progress, Publisher
from manifests.generation import ArtifactFile


class AheadSender(Publisher):
    """A publisher that also sends what is prepared for a later generation."""

    def send_ahead(self, artifacts: Sequence[ArtifactFile], progress: Progress) -> int:
        """Send what the store lacks of ``artifacts``; how many bytes that was.

        Nothing refers to the symbols yet, so a collection may delete them again; the publish that
        names them looks for each, and sends what is not there.

        Raises:
            ArtifactHashMismatch: an artifact is damaged in the writer's home.
            StoreUnavailable, DiskFull, DiskError: the store or the disk failed.
        """
        return sum(sent.size_bytes for sent in self._send_all(artifacts, self._is_whole, progress))
