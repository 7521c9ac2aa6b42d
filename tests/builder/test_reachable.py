"""From roots to artifacts and back: pure."""

from __future__ import annotations

from builder.reachable import ArtifactLists, Reach
from manifests.canonical import to_canonical
from manifests.generation import seal
from symbols.geometry import choose
from tests.builder.reached import ONE, THREE, TWO, artifact, root
from tests.manifests.samples import body, lexical


def test_an_artifact_is_kept_by_every_root_that_names_it_and_by_no_other() -> None:
    first, second = root("first", ONE, TWO), root("second", TWO, TWO)
    reach = Reach([first, second])
    assert reach.keepers(ONE.blake3) == [first]
    assert reach.keepers(TWO.blake3) == [first, second]
    assert reach.keepers(THREE.blake3) == []
    assert ONE.blake3 in reach
    assert TWO.blake3 in reach
    assert ONE.blake3 in reach
    assert THREE.blake3 not in reach


def test_a_symbol_is_reached_up_to_the_last_number_and_with_its_own_size() -> None:
    reach = Reach([root("first", ONE)])
    geometry = choose(ONE.size_bytes, 1)
    for number in range(geometry.m):
        sizes = reach.symbol_sizes(ONE.blake3, number)
        assert sizes == {geometry.object_size_bytes(number)}
    assert reach.symbol_sizes(ONE.blake3, geometry.m) == set()
    assert reach.symbol_sizes(TWO.blake3, 0) == set()


def test_an_artifact_that_was_cut_anew_for_more_stores_is_reached_in_both_cuts() -> None:
    anew = artifact("one", store_count=4)
    assert anew.symbols.m > ONE.symbols.m
    reach = Reach([root("before", ONE), root("after", anew)])
    assert len(reach.symbol_sizes(ONE.blake3, 0)) == 2
    assert len(reach.symbol_sizes(ONE.blake3, anew.symbols.m - 1)) == 1
    assert list(reach.stored_symbols()) == [(ONE.blake3, anew.symbols.m)]


def test_only_what_a_stored_root_names_must_be_in_the_stores() -> None:
    reach = Reach([root("published", ONE), root("built", ONE, TWO, is_stored=False)])
    assert list(reach.stored_symbols()) == [(ONE.blake3, ONE.symbols.m)]
    assert list(reach.stored_manifests()) == ["manifest of published"]
    keeper = reach.keeper_of_manifest("manifest of built")
    assert keeper is not None
    assert keeper.name == "built"
    assert reach.keeper_of_manifest("another") is None


def test_the_artifacts_of_a_manifest_are_read_as_the_whole_manifest_gives_them() -> None:
    manifest = seal(body())
    lists = ArtifactLists()
    found = lists.read(to_canonical(manifest))
    assert [(a.blake3, a.size_bytes, a.symbols) for a in found] == [
        (a.blake3, a.size_bytes, a.symbols) for a in manifest.artifacts
    ]


def test_what_two_manifests_share_is_read_once() -> None:
    lists = ArtifactLists()
    one = lists.read(to_canonical(seal(body())))
    more = (*body().artifacts, lexical("lexical/zz.idx"))
    other = lists.read(
        to_canonical(seal(body(artifacts=tuple(sorted(more, key=lambda a: a.name)))))
    )
    ours = {id(each) for each in one}
    assert len([each for each in other if id(each) not in ours]) == 1
