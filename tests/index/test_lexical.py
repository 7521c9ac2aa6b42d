from __future__ import annotations

import pytest

from index.snapshot import Snapshot
from manifests.errors import BadQuery
from tests.index.builds import opened
from tests.support.homes import built, make_writer

TEXTS = {
    "runs": "the runner runs every morning",
    "quotes": 'she said "glacier melt" and left',
    "and": "and or not",
    "title": "title x y z",
    "cafe": "naïve café",
    "japanese": "日本語 テキスト",
    "korean": "한국어 검색",
    "greek": "ΑΒΓ Ωμέγα",
    "cyrillic": "Быстрая лиса",
    "sharp": "Straße",
    "power": "x² and 3½",
    "long": "w" * 200 + " neighbour",
    "empty": "…",
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    writer = make_writer(tmp_path_factory.mktemp("lexical"))
    operations = [
        {"id": identity, "title": f"Heading{number}", "text": text, "fields": {"n": number}}
        for number, (identity, text) in enumerate(TEXTS.items())
    ]
    return opened(writer, built(writer, operations))


def found(snapshot: Snapshot, text: str, *, syntax: bool = False) -> list[str]:
    hits = snapshot.search(text=text, vector=None, mode="lexical", limit=20, syntax=syntax)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [hit.id for hit in hits]


@pytest.mark.parametrize("text", ["run", "Running", "RUNS", "mornings", "heading0"])
def test_words_are_found_by_their_stem_in_any_case(snapshot: Snapshot, text: str) -> None:
    assert found(snapshot, text) == ["runs"]


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("café", "cafe"),
        ("NAÏVE", "cafe"),
        ("日本語", "japanese"),
        ("テキスト", "japanese"),
        ("검색", "korean"),
        ("αβγ", "greek"),
        ("ωμέγα", "greek"),
        ("лиса", "cyrillic"),
        ("straße", "sharp"),
        ("x²", "power"),
        ("neighbours", "long"),
    ],
)
def test_words_of_other_languages_are_found(snapshot: Snapshot, text: str, identity: str) -> None:
    assert found(snapshot, text) == [identity]


@pytest.mark.parametrize("identity", [each for each in TEXTS if each != "empty"])
def test_every_document_is_found_by_its_own_text(snapshot: Snapshot, identity: str) -> None:
    assert found(snapshot, TEXTS[identity])[0] == identity


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("glacier AND NOT runner", "glacier and not runner"),
        ("glacier OR runner", "glacier or runner"),
        ("NOT glacier", "not glacier"),
        ("-glacier", "glacier"),
        ("+glacier -said", "glacier said"),
        ('"glacier', "glacier"),
        ('"melt glacier"', "melt glacier"),
        ("title:x", "title x"),
        ("id:runs", "id runs"),
        ("row:[0 TO 5]", "row 0 to 5"),
        ("body:glacier^5", "body glacier 5"),
        ("IN [glacier runner]", "in glacier runner"),
        ("(glacier", "glacier"),
        ("glacier)", "glacier"),
        ("{glacier TO *}", "glacier to"),
        ("*", ""),
        ("glac*", "glac"),
        ("/glac.*/", "glac"),
        ("glacier~2", "glacier 2"),
        ("\\", ""),
        ("glacier\0runner", "glacier runner"),
        ("glacier\nrunner", "glacier runner"),
    ],
)
def test_a_users_text_is_never_syntax(snapshot: Snapshot, text: str, same_as: str) -> None:
    assert found(snapshot, text) == found(snapshot, same_as)
    assert "empty" not in found(snapshot, text)


@pytest.mark.parametrize("text", ["", " ", "!!!", '"', "()", "…", "\0", "💡", "_", "w" * 200])
def test_text_without_a_word_finds_nothing(snapshot: Snapshot, text: str) -> None:
    assert found(snapshot, text) == []


def test_a_very_long_text_is_only_a_query_of_many_words(snapshot: Snapshot) -> None:
    assert found(snapshot, "glacier " * 8_000) == ["quotes"]
    assert found(snapshot, "glacier" * 8_000) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"glacier melt"', ["quotes"]),
        ('"melt glacier"', []),
        ("runner AND glacier", []),
        ("runner OR glacier", ["quotes", "runs"]),
        ("+morning -glacier", ["runs"]),
        ("body:glacier", ["quotes"]),
        ("id:runs", ["runs"]),
    ],
)
def test_syntax_is_read_where_it_is_asked_for(
    snapshot: Snapshot, text: str, expected: list[str]
) -> None:
    assert sorted(found(snapshot, text, syntax=True)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "(",
        '"',
        "[",
        "\\",
        "body:",
        "glacier AND",
        "NOT glacier",
        "-glacier",
        "glacier^x",
        "nofield:x",
        "title:x",
        "row:5",
        "document:x",
        "body:/glac.*/",
        "(" * 5_000,
    ],
)
def test_bad_syntax_is_a_bad_query(snapshot: Snapshot, text: str) -> None:
    with pytest.raises(BadQuery):
        found(snapshot, text, syntax=True)


def test_a_document_is_given_back_whole(snapshot: Snapshot) -> None:
    document = snapshot.document("japanese")
    assert document is not None
    assert (document.id, document.title, document.text, document.fields) == (
        "japanese",
        "Heading5",
        TEXTS["japanese"],
        {"n": 5},
    )
    for absent in ("", "Japanese", "japan", "japanese ", "*", "id:japanese"):
        assert snapshot.document(absent) is None
