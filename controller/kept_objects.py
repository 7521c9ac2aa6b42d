"""What keeps something from being collected: ``genctl gc --explain``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from builder.collect import judged as judged_objects
from builder.garbage import LEFT_KINDS, Explanation, Object, Verdict, kept_by, kind_of
from builder.reachable import Root
from controller import clock
from controller.collection_plan import Judgement, judged
from controller.published_manifests import ManifestsHere
from controller.writer import WriterHome
from manifests.errors import BadSetting, NothingOfThatName
from manifests.generation import GenerationManifest, parse_manifest
from manifests.identifiers import content_id, is_generation_id
from manifests.names import symbol_key, symbol_of
from store.keys import check_key

_HASH = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[1-9][0-9]{0,17}")
KEPT = "it is kept"
GOES = "nothing keeps it: the next collection deletes it"
GOES_WITH_OTHERS = (
    "nothing keeps it: it goes with a collection that has something else to delete, or much of this"
)


def explain(writer: WriterHome, asked: str) -> Explanation:
    """What keeps something from being collected; nothing is changed.

    Of the stores only what is asked about is listed.

    Args:
        writer: the home.
        asked: a generation's id or tag or one of its commit numbers, an artifact's name or id, a
            manifest's id, or the key of an object in a store.

    Raises:
        NothingOfThatName: it is none of these.
        PartsMissing, WriterFenced, StoreUnavailable, DiskError: see
            :func:`controller.collection_plan.plan`.
    """
    made = judged(writer, writer.current(), clock.now())
    found = (
        _generation(made, asked)
        or _manifest(writer, made, asked)
        or _artifact(writer, made, asked)
        or _object(writer, made, asked)
    )
    if found is None:
        raise NothingOfThatName(
            f"nothing here or in a store is called {asked[:80]!r}. Give a generation's id or tag, "
            "a commit's number, an artifact's name (as `genctl show` prints it) or id, the id of a "
            "manifest, or an object's key",
            asked=asked[:200],
        )
    return found


def _generation(made: Judgement, asked: str) -> Explanation | None:
    """A generation by its id, a tag or the number of a commit."""
    if is_generation_id(asked):
        what, generation_id = "a generation", asked
    elif tagged := next((tag for tag in made.record.tags if tag.name == asked), None):
        what, generation_id = f"the tag of {tagged.generation_id}", tagged.generation_id
    elif _COMMIT.fullmatch(asked):
        return _commit(made, asked)
    else:
        return None
    found = _kept_or_leaving(made, asked, what, generation_id)
    if found is None and made.record.is_collected(generation_id):
        return Explanation(asked, what, (), _collected(made))
    return found


def _commit(made: Judgement, asked: str) -> Explanation | None:
    commit_seq = int(asked)
    for entry in made.record.published:
        if entry.low_seq <= commit_seq <= entry.high_seq:
            what = f"a commit of {entry.generation_id}"
            return _kept_or_leaving(made, asked, what, entry.generation_id)
    if any(span.low_seq <= commit_seq <= span.high_seq for span in made.record.collected):
        return Explanation(asked, "a commit", (), f"the generation of it {_collected(made, '')}")
    return None


def _collected(made: Judgement, subject: str = "it ") -> str:
    first, last = (f(made.record.retained, default="none") for f in (min, max))
    return f"{subject}was collected and is gone for good; retained are {first} to {last}"


def _kept_or_leaving(
    made: Judgement, asked: str, what: str, generation_id: str
) -> Explanation | None:
    for root in made.rooted.reach.roots:
        if root.name == generation_id:
            return Explanation(asked, what, (_told(root),), KEPT)
    if generation_id in made.rooted.leaving:
        return Explanation(asked, what, (), GOES)
    return None


def _manifest(writer: WriterHome, made: Judgement, asked: str) -> Explanation | None:
    if not _HASH.fullmatch(asked):
        return None
    ids = {entry.manifest_id: entry.generation_id for entry in made.record.published}
    manifests = ManifestsHere(writer, made.record)
    for generation_id in set(writer.residence.resident_ids()) - set(ids.values()):
        data = manifests.get(generation_id)
        if isinstance(data, bytes):
            ids[content_id(data)] = generation_id
    if asked not in ids:
        return None
    return _kept_or_leaving(made, asked, f"the manifest of {ids[asked]}", ids[asked])


def _artifact(writer: WriterHome, made: Judgement, asked: str) -> Explanation | None:
    """An artifact by its id or a name; of those of one name that of the newest generation."""
    what = "an artifact"
    artifact_id = asked
    if not _HASH.fullmatch(asked):
        named = next(
            (
                (manifest.generation_id, artifact.blake3)
                for manifest in _manifests(writer, made)
                for artifact in manifest.artifacts
                if artifact.name == asked
            ),
            None,
        )
        if named is None:
            return None
        what, artifact_id = f"artifact {named[1]} of {named[0]}", named[1]
    of = [
        name
        for name, artifacts in made.rooted.leaving.items()
        if any(artifact.blake3 == artifact_id for artifact in artifacts)
    ]
    if of and artifact_id == asked:
        what = f"an artifact of {', '.join(of)}"
    keepers = kept_by(made.rooted.reach, artifact_id)
    if keepers:
        return Explanation(asked, what, keepers, KEPT)
    folder = symbol_key(artifact_id, 0).removesuffix("00")
    found = list(_listed(writer, made, folder))
    is_here = any(artifact_id == each for each, _ in writer.residence.kept_artifacts())
    if not (of or is_here or found):
        return None
    return Explanation(asked, what, (), _verdict(made, found) if found else GOES)


def _manifests(writer: WriterHome, made: Judgement) -> Iterator[GenerationManifest]:
    """Those that are here, the newest first."""
    manifests = ManifestsHere(writer, made.record)
    for generation_id in reversed(writer.residence.resident_ids()):
        data = manifests.get(generation_id)
        if isinstance(data, bytes):
            yield parse_manifest(data)


def _listed(writer: WriterHome, made: Judgement, prefix: str) -> Iterator[Object]:
    """What the stores have under ``prefix``, and what becomes of it."""
    return judged_objects(writer.store().stores, made.marks, prefix)


def _object(writer: WriterHome, made: Judgement, asked: str) -> Explanation | None:
    try:
        check_key(asked)
    except BadSetting:
        return None
    found = [each for each in _listed(writer, made, asked) if each.info.key == asked]
    if not found:
        return None
    kind, symbol = kind_of(asked), symbol_of(asked)
    keepers: tuple[tuple[str, tuple[str, ...]], ...] = ()
    what = _WHAT[kind]
    if symbol is not None:
        keepers = kept_by(made.rooted.reach, symbol[0])
        what = f"symbol {symbol[1]} of artifact {symbol[0]}"
    elif (root := made.rooted.reach.keeper_of_manifest(asked)) is not None:
        keepers = (_told(root),)
    elif asked in made.marks.named:
        keepers = (("the signed record", ("it is named by what is signed now",)),)
    return Explanation(asked, what, keepers, _verdict(made, found))


def _told(root: Root) -> tuple[str, tuple[str, ...]]:
    return root.name, root.reasons


def _verdict(made: Judgement, found: Iterable[Object]) -> str:
    """What becomes of objects, of which one store may have one that belongs in another."""
    verdicts: set[Verdict] = {each.verdict for each in found}
    if verdicts == {"garbage"}:
        is_certain = bool(made.retention.dropped) or made.was_interrupted
        if not is_certain and all(each.kind in LEFT_KINDS for each in found):
            return GOES_WITH_OTHERS
        return GOES
    if "young" in verdicts:
        if all(each.kind == "records" for each in found):
            return "nothing keeps it; it is left until it is some minutes old"
        hours = int(made.marks.grace.total_seconds() // 3600)
        return f"nothing keeps it; it is left until it is {hours} hours old"
    if "unknown" in verdicts:
        return "genctl has not written it, and leaves it"
    if "garbage" in verdicts:
        return "it is kept where it belongs; a copy in another store goes"
    return KEPT


_WHAT = {
    "symbols": "a symbol",
    "manifests": "a manifest",
    "records": "a control record",
    "metadata": "signed metadata",
    "probes": "what a test of conditional writes left",
    "leases": "a lease",
    "unknown": "an object",
}
