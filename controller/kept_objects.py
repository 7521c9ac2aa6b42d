"""What keeps something from being collected: ``genctl gc --explain``."""

from __future__ import annotations

import re
from collections.abc import Callable

from builder.garbage import Explanation, Marks, Object, Verdict, kept_by, kind_of
from builder.reachable import Root
from controller import clock
from controller.collection_plan import CollectionPlan, plan
from controller.writer import WriterHome
from manifests.errors import BadSetting, GenerationUnknown
from manifests.identifiers import content_id, is_generation_id
from manifests.names import symbol_of

_HASH = re.compile(r"[0-9a-f]{64}")
KEPT = "it is kept"
GOES = "nothing keeps it: the next collection deletes it"


def explain(writer: WriterHome, asked: str) -> Explanation:
    """What keeps a generation, an artifact, a manifest or an object of a store, by id or key.

    Nothing is changed.

    Raises:
        GenerationUnknown: no such generation is here, or was published.
        GenerationCollected: it was published, and is gone.
        BadSetting: nothing of that name is here, or in a store.
        WriterFenced, ManifestError, StoreUnavailable, DiskError: see :func:`plan`.
    """
    found: list[Object] = []
    wanted = _wanted(asked)
    made = plan(
        writer, clock.now(), lambda each: found.append(each) if wanted(each.info.key) else None
    )
    if is_generation_id(asked):
        return _generation(writer, made, asked, asked)
    if not _HASH.fullmatch(asked):
        return _object(made, asked, found)
    named = {
        content_id(writer.residence.manifest_bytes(each)): each
        for each in writer.residence.resident_ids()
    }
    if asked in named:
        return _generation(writer, made, asked, named[asked])
    return _artifact(made, asked, found)


def _wanted(asked: str) -> Callable[[str], bool]:
    """Which objects have to do with what is asked: one key, or the symbols of an artifact."""
    if _HASH.fullmatch(asked):
        return lambda key: (symbol_of(key) or ("", 0))[0] == asked
    return lambda key: key == asked


def _generation(
    writer: WriterHome, made: CollectionPlan, asked: str, generation_id: str
) -> Explanation:
    what = "a generation" if asked == generation_id else f"the manifest of {generation_id}"
    for root in made.rooted.reach.roots:
        if root.name == generation_id:
            return Explanation(asked, what, (_told(root),), KEPT)
    if generation_id in made.rooted.leaving:
        return Explanation(asked, what, (), GOES)
    if not any(each == generation_id for each in writer.residence.resident_ids()):
        writer.current().signed.record.entry(generation_id)  # what was collected is told as such
    raise GenerationUnknown(f"no generation {generation_id} is here", generation_id=generation_id)


def _artifact(made: CollectionPlan, asked: str, found: list[Object]) -> Explanation:
    keepers = kept_by(made.rooted.reach, asked)
    of = [
        name
        for name, artifacts in made.rooted.leaving.items()
        if any(artifact.blake3 == asked for artifact in artifacts)
    ]
    is_here = asked in made.home.artifacts
    if not (keepers or of or is_here or found):
        raise BadSetting(f"no generation, manifest or artifact {asked} is here, or in a store")
    what = f"an artifact of {', '.join(of)}" if of else "an artifact"
    if keepers:
        return Explanation(asked, what, keepers, KEPT)
    return Explanation(asked, what, (), _verdict(made.marks, found) if found else GOES)


def _object(made: CollectionPlan, asked: str, found: list[Object]) -> Explanation:
    if not found:
        raise BadSetting(f"no store has an object {asked[:80]!r}", key=asked)
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
    return Explanation(asked, what, keepers, _verdict(made.marks, found))


def _told(root: Root) -> tuple[str, tuple[str, ...]]:
    return root.name, root.reasons


def _verdict(marks: Marks, found: list[Object]) -> str:
    """What becomes of objects, of which one store may have one that belongs in another."""
    verdicts: set[Verdict] = {each.verdict for each in found}
    if verdicts == {"garbage"}:
        return GOES
    if "young" in verdicts:
        hours = int(marks.grace.total_seconds() // 3600)
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
