"""A whole audit trail, checked: the chain of its receipts, and what became of what they tell of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.identifiers import content_id
from manifests.receipts import Document, Receipt, parse_receipt


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the trail.

    Attributes:
        number: from 1.
        receipt: what it says, if it can be read.
        fault: what is wrong with it, or with what should stand before it.
        took_place: whether the change did; ``None`` where that cannot be told.
    """

    number: int
    receipt: Receipt | None
    fault: str | None
    took_place: bool | None


@dataclass(frozen=True, slots=True)
class Trail:
    """A whole trail as it was found.

    Attributes:
        lines: all of them, the damaged ones too.
        disagreements: where a document is not what the receipts made it, in words.
        torn_bytes: what a write that was cut off left at the end; the next append removes it.
        head: BLAKE3 of the last line; it vouches for all lines of its chain.
    """

    lines: tuple[Line, ...]
    disagreements: tuple[str, ...]
    torn_bytes: int
    head: str | None

    @property
    def first_fault(self) -> Line | None:
        """The first line that has one."""
        return next((line for line in self.lines if line.fault is not None), None)


def verify(data: bytes, present: Mapping[Document, str | None]) -> Trail:
    """Check a whole trail.

    Args:
        data: the bytes of the file.
        present: the BLAKE3 of those documents that are known as they are now, ``None`` for one
            that does not exist. The last receipt of each must agree with it.
    """
    *whole, torn = data.split(b"\n")
    receipts, faults = _chained(whole)
    history = _History()
    for number, receipt in receipts.items():
        if receipt is None:
            history.forget()
        elif not history.goes_on(number, receipt):
            faults.setdefault(
                number, f"before this, the {receipt.document} was changed without a receipt"
            )
    disagreements = [
        f"no receipt accounts for the {document} as it is now"
        for document, found in present.items()
        if not history.ends_in(document, found)
    ]
    return Trail(
        lines=tuple(
            Line(number, receipt, faults.get(number), history.took_place.get(number))
            for number, receipt in receipts.items()
        ),
        disagreements=tuple(disagreements),
        torn_bytes=len(torn),
        head=content_id(whole[-1]) if whole else None,
    )


def _chained(lines: Sequence[bytes]) -> tuple[dict[int, Receipt | None], dict[int, str]]:
    """The receipts by line number, and what is wrong with the chain, by line number."""
    receipts: dict[int, Receipt | None] = {}
    faults: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            receipts[number] = parse_receipt(line)
        except (ManifestMalformed, SchemaTooNew) as error:
            receipts[number], faults[number] = None, f"it is not a receipt: {error}"
    for number, receipt in receipts.items():
        if receipt is None:
            continue
        if number == 1 or receipt.broken is not None:
            fault = _start_fault(number, receipt, lines, receipts)
            if fault is not None:
                faults[number] = fault
            continue
        before = receipts[number - 1]
        if before is None:
            continue  # the line before is the one that is wrong
        if receipt.sequence != before.sequence + 1:
            faults[number] = (
                f"receipt {receipt.sequence} stands after {before.sequence}: receipts were "
                "removed, put in or altered"
            )
        elif not _is_linked(number, lines, receipts):
            # One that fits neither the line before nor the one after it is itself the altered one.
            fits_next = number == len(lines) or _is_linked(number + 1, lines, receipts)
            faults.setdefault(
                number - 1 if fits_next else number, "it was altered after it was written"
            )
    return receipts, faults


def _is_linked(number: int, lines: Sequence[bytes], receipts: Mapping[int, Receipt | None]) -> bool:
    """Whether a line names the one before it."""
    receipt = receipts[number]
    return receipt is not None and receipt.previous == content_id(lines[number - 2])


def _start_fault(
    number: int, receipt: Receipt, lines: Sequence[bytes], receipts: Mapping[int, Receipt | None]
) -> str | None:
    """What is wrong with the start of a chain."""
    if receipt.broken is None:
        if receipt.sequence == 1 and receipt.previous is None:
            return None
        return f"receipt {receipt.sequence} stands first: those before it are gone"
    if (
        number > 1
        and receipts[number - 1] is None
        and receipt.broken.blake3 == content_id(lines[number - 2])
        and receipt.previous is None
    ):
        return None
    return "it was written after a damaged line that is not the one before it"


class _History:
    """What became of each document, receipt by receipt."""

    def __init__(self) -> None:
        self.took_place: dict[int, bool] = {}
        self._last: dict[Document, tuple[int, Receipt]] = {}
        self._is_whole = True

    def forget(self) -> None:
        """A receipt cannot be read: it may have told of any document."""
        self._last.clear()
        self._is_whole = False

    def goes_on(self, number: int, receipt: Receipt) -> bool:
        """Take the next receipt; whether it starts from what one before it left.

        A document that was lost, or could not be read, is no fault: its receipt says so.
        """
        fits = self._settle(receipt.document, receipt.before) or receipt.before is None
        if receipt.after is not None:
            self._last[receipt.document] = number, receipt
        return fits

    def ends_in(self, document: Document, found: str | None) -> bool:
        """Whether the receipts account for a document as it is now.

        A home whose trail has no receipt of a root of trust still has the one it was made with.
        """
        if document not in self._last:
            return found is None or not self._is_whole or document == "root"
        return self._settle(document, found)

    def _settle(self, document: Document, found: str | None) -> bool:
        """Whether the last change took place, by what was found after it; ``False``: neither."""
        if document not in self._last:
            return True
        number, receipt = self._last[document]
        if found not in {receipt.before, receipt.after}:
            return False
        self.took_place[number] = found == receipt.after
        return True
