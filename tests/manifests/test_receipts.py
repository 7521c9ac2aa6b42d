from __future__ import annotations

from collections.abc import Sequence

import pytest

from manifests.audit_trail import Trail, verify
from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.identifiers import content_id
from manifests.receipts import (
    REASON_LIMIT,
    BrokenLine,
    Change,
    Document,
    Receipt,
    line_of,
    parse_receipt,
    receipt_after,
)

TIME = "2024-05-06T07:08:09+00:00"
STATES = [content_id(f"state {number}".encode()) for number in range(10)]


def change(before: int | None, after: int | None, document: Document = "pointer") -> Change:
    """From one numbered state of a document to another."""
    return Change(
        kind="activate",
        document=document,
        time=TIME,
        before=None if before is None else STATES[before],
        after=None if after is None else STATES[after],
    )


def written(changes: Sequence[Change]) -> list[bytes]:
    """Their lines, each after the one before, with their line feeds."""
    lines: list[bytes] = []
    for each in changes:
        last = lines[-1].removesuffix(b"\n") if lines else None
        lines.append(line_of(receipt_after(each, last, lambda: len(lines))))
    return lines


def checked(lines: Sequence[bytes], pointer: int | None = None) -> Trail:
    """The trail, where the pointer is now in that state; ``None``: it is not looked at."""
    return verify(b"".join(lines), {} if pointer is None else {"pointer": STATES[pointer]})


def faulty(trail: Trail) -> list[int]:
    return [line.number for line in trail.lines if line.fault is not None]


def outcomes(trail: Trail) -> list[bool | None]:
    return [line.took_place for line in trail.lines]


FOUR = written([change(None, 1), change(1, 2), change(2, 3), change(3, 4)])


def test_each_receipt_names_the_exact_bytes_before_it() -> None:
    receipts = [parse_receipt(line.rstrip(b"\n")) for line in FOUR]
    assert [each.sequence for each in receipts] == [1, 2, 3, 4]
    assert receipts[0].previous is None
    assert [each.previous for each in receipts[1:]] == [content_id(line[:-1]) for line in FOUR[:3]]
    trail = checked(FOUR, 4)
    assert (faulty(trail), trail.disagreements, trail.torn_bytes) == ([], (), 0)
    assert trail.head == content_id(FOUR[-1][:-1])
    assert outcomes(trail) == [True, True, True, True]


def test_a_trail_without_receipts_accounts_for_no_pointer() -> None:
    assert verify(b"", {"pointer": None}).disagreements == ()
    assert verify(b"", {"root": STATES[0]}).disagreements == ()
    (told,) = verify(b"", {"pointer": STATES[0]}).disagreements
    assert "pointer" in told


@pytest.mark.parametrize("number", range(4))
def test_a_line_that_was_altered_into_another_receipt_is_named(number: int) -> None:
    receipt = parse_receipt(FOUR[number][:-1])
    altered = line_of(receipt.model_copy(update={"reason": "all is well"}))
    trail = checked([*FOUR[:number], altered, *FOUR[number + 1 :]], 4)
    if number < 3:
        assert faulty(trail) == [number + 1]
    else:
        # Nothing was written after the last line: only its hash, noted elsewhere, tells.
        assert trail.head != content_id(FOUR[-1][:-1])


@pytest.mark.parametrize("number", range(4))
def test_every_flipped_bit_of_a_line_but_the_last_is_named(number: int) -> None:
    for offset in range(len(FOUR[number])):
        line = bytearray(FOUR[number])
        line[offset] ^= 0x01
        trail = checked([*FOUR[:number], bytes(line), *FOUR[number + 1 :]], 4)
        whole = trail.first_fault is None and not trail.torn_bytes
        if number < 3:
            assert trail.first_fault is not None
            assert trail.first_fault.number in {number + 1, number + 2}, offset
        else:
            assert not whole or trail.disagreements or trail.head != content_id(FOUR[3][:-1])


@pytest.mark.parametrize("number", range(3))
def test_a_line_that_was_removed_is_missed_by_the_one_after_it(number: int) -> None:
    assert faulty(checked([*FOUR[:number], *FOUR[number + 1 :]], 4))[0] == number + 1


def test_receipts_that_were_cut_off_the_end_are_missed_by_the_pointer() -> None:
    trail = checked(FOUR[:2], 4)
    assert faulty(trail) == []
    assert trail.disagreements == ("no receipt accounts for the pointer as it is now",)


def test_lines_that_changed_places_or_came_twice_are_named() -> None:
    first, second, third, fourth = FOUR
    assert faulty(checked([first, third, second, fourth], 4))[0] == 2
    assert faulty(checked([first, second, second, third, fourth], 4))[0] == 3


def test_a_receipt_whose_change_never_took_place_is_known_by_the_next_one() -> None:
    trail = checked(written([change(None, 1), change(1, 2), change(1, 2), change(2, 3)]), 3)
    assert faulty(trail) == []
    assert outcomes(trail) == [True, False, True, True]


def test_a_last_receipt_whose_change_never_took_place_is_known_by_the_pointer() -> None:
    lines = written([change(None, 1), change(1, 2)])
    assert outcomes(checked(lines, 1)) == [True, False]
    assert outcomes(checked(lines, 2)) == [True, True]
    assert outcomes(checked(lines)) == [True, None]
    first = verify(lines[0], {"pointer": None})
    assert (outcomes(first), first.disagreements) == ([False], ())


def test_a_pointer_that_was_moved_without_a_receipt_is_named() -> None:
    trail = checked(written([change(None, 1), change(1, 2), change(7, 3)]), 3)
    assert faulty(trail) == [3]
    assert outcomes(trail) == [True, None, True]


def test_a_first_change_that_never_took_place_is_known_by_the_next_one() -> None:
    trail = checked(written([change(None, 1), change(None, 1), change(1, 2)]), 2)
    assert faulty(trail) == []
    assert outcomes(trail) == [False, True, True]


def test_a_pointer_that_was_lost_in_between_is_no_fault() -> None:
    trail = checked(written([change(None, 1), change(1, 2), change(None, 3)]), 3)
    assert faulty(trail) == []
    assert outcomes(trail) == [True, None, True]


def test_documents_do_not_answer_for_one_another() -> None:
    changes = [
        change(None, 1),
        change(7, 8, "root"),
        change(1, 2),
        change(None, None, "quarantine"),
    ]
    trail = verify(b"".join(written(changes)), {"pointer": STATES[2], "root": STATES[8]})
    assert (faulty(trail), trail.disagreements) == ([], ())
    assert outcomes(trail) == [True, True, True, None]


def test_after_damage_the_chain_starts_anew_and_names_it() -> None:
    damaged = b"\0" * 40
    lines = [*FOUR[:2], damaged + b"\n"]
    restart = receipt_after(change(2, 3), damaged, lambda: 3)
    assert restart.broken == BrokenLine(line=3, blake3=content_id(damaged))
    assert (restart.sequence, restart.previous) == (4, None)
    lines.append(line_of(restart))
    lines.append(line_of(receipt_after(change(3, 4), lines[-1][:-1], lambda: 4)))
    trail = checked(lines, 4)
    assert faulty(trail) == [3]
    assert outcomes(trail) == [True, None, None, True, True]
    assert trail.disagreements == ()


def test_a_new_start_that_names_no_damage_is_a_fault() -> None:
    broken = BrokenLine(line=2, blake3=content_id(FOUR[1][:-1]))
    forged = Receipt(**dict(change(2, 9)), sequence=3, broken=broken)
    assert faulty(checked([*FOUR[:2], line_of(forged)], 9)) == [3]
    elsewhere = forged.model_copy(update={"broken": BrokenLine(line=1, blake3=STATES[0])})
    assert faulty(checked([b"damage\n", line_of(elsewhere)], 9)) == [1, 2]


def test_a_torn_end_is_told_and_no_fault() -> None:
    for length in range(len(FOUR[3])):
        trail = checked([*FOUR[:3], FOUR[3][:length]], 3)
        assert (len(trail.lines), trail.torn_bytes, faulty(trail)) == (3, length, [])


def test_a_newer_receipt_is_not_guessed_at() -> None:
    newer = FOUR[0][:-1].replace(b'"schema_version":1', b'"schema_version":2')
    with pytest.raises(SchemaTooNew):
        parse_receipt(newer)
    with pytest.raises(ManifestMalformed):
        parse_receipt(b"{}")
    assert "version 2" in str(checked([newer + b"\n"]).lines[0].fault)


def test_a_long_reason_is_cut() -> None:
    told = change(1, 2).model_copy(update={"reason": "x" * 10_000})
    reason = receipt_after(told, None, lambda: 0).reason
    assert reason is not None
    assert (len(reason), reason[-2:]) == (REASON_LIMIT, "x…")
