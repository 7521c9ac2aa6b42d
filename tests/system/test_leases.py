"""`genctl lease` as its users have it, and what they may type."""

from __future__ import annotations

import json

import pytest

from tests.support.process import Genctl
from tests.system.world import bootstrap, documents, ingest, release, writer_home

FIRST = "g000000000001-0123456789ab"


@pytest.fixture
def generation(genctl: Genctl) -> str:
    """A generation at the writer w and the node n."""
    writer_home(genctl)
    ingest(genctl, documents(1, 3), 10)
    generation_id = release(genctl)
    bootstrap(genctl)
    return generation_id


def test_a_lease_from_the_first_to_the_last(genctl: Genctl, generation: str) -> None:
    line = ["lease", "take", "w", generation, "--for", "2h", "--holder", "backup-1"]
    taken = genctl(*line, "--purpose", "nightly", "--json").ok().json
    assert taken.keys() == {
        *("generation_id", "holder", "purpose", "taken_at", "expires_at", "store", "had_expired")
    }
    assert (taken["generation_id"], taken["holder"], taken["purpose"], taken["had_expired"]) == (
        *(generation, "backup-1", "nightly"),
        False,
    )
    for home in ("w", "n"):
        (listed,) = genctl("lease", "list", home, "--json").ok().json["leases"]
        assert listed == {k: taken[k] for k in listed if k != "expired"} | {"expired": False}
    told = genctl("lease", "list", "n").ok().out
    assert generation in told
    assert "nightly" in told
    assert "expired" not in told
    renewed = genctl("lease", "renew", "n", generation, "--for", "3d", "--holder", "backup-1")
    assert f"backup-1 renewed {generation} until" in renewed.ok().out
    released = ["lease", "release", "n", generation, "--holder", "backup-1", "--json"]
    assert genctl(*released).ok().json["released"] is True
    assert genctl(*released).ok().json["released"] is False
    assert "There are no leases." in genctl("lease", "list", "w").ok().out


def test_an_expired_lease_is_marked_and_what_is_none_is_told(
    genctl: Genctl, generation: str
) -> None:
    genctl("lease", "take", "w", generation, "--for", "1s", "--holder", "a").ok()
    folder = genctl.folder / "s" / "leases" / generation
    lease = json.loads((folder / "a.json").read_bytes())
    lease |= {"taken_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-01T01:00:00Z"}
    (folder / "a.json").write_text(json.dumps(lease, sort_keys=True, separators=(",", ":")))
    (folder / "b.json").write_bytes(b"\x1b[2J\xff")
    told = genctl("lease", "list", "w").ok().out
    assert "expired" in told
    assert "b.json" in told
    assert "\x1b" not in told
    document = genctl("lease", "list", "w", "--json").ok().json
    assert [each["expired"] for each in document["leases"]] == [True]
    assert document["unreadable_count"] == 1
    line = ["lease", "renew", "w", generation, "--for", "1h", "--holder", "a"]
    assert "had ended" in genctl(*line).ok().out
    bootstrap(genctl, "another")


def test_a_bootstrap_says_under_which_lease_it_fetched_or_why_under_none(
    genctl: Genctl, generation: str
) -> None:
    report = bootstrap(genctl, "fresh")
    assert report["lease"]["holder"].startswith("node-")
    assert report["lease_reason"] is None
    report = bootstrap(genctl, "fresh")
    assert (report["lease"], report["lease_reason"]) == (None, "nothing was fetched")
    assert genctl("lease", "list", "w", "--json").ok().json["leases"] == []


@pytest.mark.parametrize("how_long", ["0s", "2", "h", "-1h", "1.5h", "31d", "721h", "9999999999s"])
def test_a_time_that_no_lease_may_last_is_refused(
    genctl: Genctl, generation: str, how_long: str
) -> None:
    line = ["lease", "take", "w", generation, "--holder", "a", f"--for={how_long}"]
    genctl(*line).refused(2, "90s, 30m, 2h or 7d")
    assert not list((genctl.folder / "s" / "leases").rglob("*.json"))


@pytest.mark.parametrize("holder", ["", "A", "../x", "a/b", "-a", "a" * 64, "é"])
def test_a_name_that_no_holder_may_have_is_refused(
    genctl: Genctl, generation: str, holder: str
) -> None:
    for act in (["take", "--for", "1h"], ["renew", "--for", "1h"], ["release"]):
        genctl("lease", act[0], "w", generation, *act[1:], f"--holder={holder}").refused(2)


def test_what_cannot_be_leased_is_named(genctl: Genctl, generation: str) -> None:
    options = ["--for", "1h", "--holder", "a"]
    genctl("lease", "take", "w", FIRST, *options).refused(3, "GenerationNotPublished")
    genctl("lease", "take", "w", "../x", *options).refused(3, "GenerationUnknown")
    genctl("lease", "renew", "w", generation, *options).refused(3, "LeaseUnknown")
    genctl("lease", "take", "nowhere", generation, *options).refused(3, "HomeMissing")
    genctl("lease", "take", "w", generation, *options, "--purpose", "a\nb").refused(2)
    document = genctl("lease", "list", "w", "--json").ok().json
    assert document["leases"] == []


def test_a_node_without_its_store_says_so(genctl: Genctl, generation: str) -> None:
    (genctl.folder / "s").rename(genctl.folder / "away")
    for line in (
        ["take", "n", generation, "--for", "1h", "--holder", "a"],
        ["renew", "n", generation, "--for", "1h", "--holder", "a"],
        ["release", "n", generation, "--holder", "a"],
        ["list", "n"],
    ):
        genctl("lease", *line).refused(5, "StoreUnavailable")
