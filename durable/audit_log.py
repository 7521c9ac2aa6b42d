"""The file that a home's audit trail is kept in: one receipt a line, appended and flushed.

What the lines say and how they are chained is :mod:`manifests.receipts`. Who appends holds the lock
of the home. Damage inside the file stops no append: it is for ``genctl audit`` to name.
"""

from __future__ import annotations

import os
from pathlib import Path

from durable import files
from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.receipts import Change, Document, Receipt, line_of, parse_receipt, receipt_after

AUDIT_FILE = "audit.jsonl"
TAIL_BYTES = 64 * 1024
"""How much of the end is read to append: several receipts, of which none has 16 KiB."""
_READ_BYTES = 1 << 20


class AuditLog:
    """The audit trail of one home."""

    def __init__(self, home: Path) -> None:
        self.path = home / AUDIT_FILE

    def append(self, change: Change) -> Receipt:
        """Leave the receipt of a change that is about to be made; it is durable on return.

        A torn last line is cut off first, and the receipt says how much that was.

        Raises:
            DiskFull, DiskError: it could not be written; the change must not be made.
            ManifestMalformed: the change has text that is not valid Unicode.
        """
        if not self.path.exists():
            receipt = receipt_after(change, None, lambda: 0)
            if files.create_file(self.path, [line_of(receipt)]):
                return receipt
        size_bytes, tail = self._tail()
        *whole, torn = tail.split(b"\n")
        last = whole[-1] if whole else None
        receipt = receipt_after(change, last, self._line_count, cut_bytes=len(torn))
        end_bytes = size_bytes - len(torn)
        file = files.WritableFile(self.path)
        try:
            if torn:
                file.truncate(end_bytes)
            file.write_at(end_bytes, line_of(receipt))
            file.fsync()
        finally:
            file.close()
        return receipt

    def last_of(self, document: Document) -> Receipt | None:
        """The newest receipt of a document, if one stands near the end of the trail.

        Raises:
            DiskError: the file cannot be read.
        """
        if not self.path.exists():
            return None
        for line in reversed(self._tail()[1].split(b"\n")[:-1]):
            try:
                receipt = parse_receipt(line)
            except (ManifestMalformed, SchemaTooNew):
                continue
            if receipt.document == document and receipt.after is not None:
                return receipt
        return None

    def read(self) -> bytes:
        """The whole file; nothing where no receipt was ever left.

        Raises:
            DiskError: it cannot be read.
        """
        if not self.path.exists():
            return b""
        with files.translated(self.path):
            return files.read_file(self.path)

    def _tail(self) -> tuple[int, bytes]:
        """The size of the file, and its end: the last line that is whole, and what follows it.

        The first line in it may be cut; only where damage made a line longer is more read.
        """
        tail_bytes = TAIL_BYTES
        with files.translated(self.path), files.opened_file(self.path) as stream:
            size_bytes = stream.seek(0, os.SEEK_END)
            while True:
                stream.seek(max(0, size_bytes - tail_bytes))
                tail = stream.read()
                if tail_bytes >= size_bytes or tail.count(b"\n") > 1:
                    return size_bytes, tail
                tail_bytes *= 2

    def _line_count(self) -> int:
        with files.translated(self.path), files.opened_file(self.path) as stream:
            return sum(piece.count(b"\n") for piece in iter(lambda: stream.read(_READ_BYTES), b""))
