"""What a transfer is going to move, worked out beforehand from what its sources say they have.

Each artifact is followed through the steps of :mod:`replicator.fetch` and :mod:`replicator.mend`,
asking the same :class:`~replicator.sources.Sources` in the same order, with the sizes of objects
in place of bytes. Of an object that is too short, what is there counts as good. What only shows
when bytes are read cannot be foreseen: damage, and sources that fail on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from durable import files
from index.residence import Residence
from manifests.errors import (
    DiskError,
    ExpansionExceeded,
    GenctlError,
    LengthExceeded,
    RetryError,
)
from manifests.generation import ArtifactFile
from manifests.names import artifact_key, symbol_key, table_key
from replicator.plan import FetchPlan
from replicator.runs import Run, runs_of, source_runs
from replicator.scrub import missing_runs
from replicator.signed_chunks import SignedChunks
from replicator.sources import Place, Source, Sources, Supply
from replicator.tables import Tables, kept_table
from replicator.tally import Counting, Kind
from store.port import ObjectInfo

SOURCES_AT_ONCE = 8
QUESTIONS_AT_ONCE = 8
"""Of each source."""


@dataclass(frozen=True, slots=True)
class SourceForecast:
    """The bytes that one source is going to be asked for; ``refusal`` is why it gives none."""

    kind: Kind
    url: str
    size_bytes: int
    refusal: GenctlError | None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An artifact that cannot be had as things are, and why."""

    artifact: ArtifactFile
    reason: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a transfer is going to move, in bytes, tables included.

    Attributes:
        reuse_bytes: here already, and intact.
        resume_bytes: good chunks that an earlier fetch left, or that a damaged artifact still has.
        sources: what is read from each source.
        table_bytes: how much of that are tables of chunk hashes.
        repair_bytes: how much of it are repair symbols, in place of lost source symbols.
        rebuilt_bytes: the bytes of the artifacts that are computed from them.
        shortfalls: the artifacts that cannot be had.
        disk_peak_bytes: how much more the disk has to hold.
    """

    reuse_bytes: int
    resume_bytes: int
    sources: tuple[SourceForecast, ...]
    table_bytes: int
    repair_bytes: int
    rebuilt_bytes: int
    shortfalls: tuple[Shortfall, ...]
    disk_peak_bytes: int

    def bytes_from(self, kind: Kind) -> int:
        """What is read from all sources of a kind."""
        return sum(source.size_bytes for source in self.sources if source.kind == kind)

    @property
    def fetch_bytes(self) -> int:
        """What is read from all sources."""
        return sum(source.size_bytes for source in self.sources)


def forecast(plan: FetchPlan, residence: Residence, supply: Supply, incoming: Path) -> Forecast:
    """Foresee the transfer of ``plan``; only sizes and, for what is resumed, tables are read.

    A source that does not answer is taken to have nothing, and named.

    Raises:
        ManifestMalformed: the manifest describes impossible symbols.
    """
    sources = Sources(supply.peers, supply.stores, supply.now_s)
    held = _Held(sources, plan.fetch, supply.now_s)
    outlooks = [
        _Outlook(artifact, residence, sources, held, incoming).follow() for artifact in plan.fetch
    ]
    moved = sum((each.moved for each in outlooks), Counter[str]())
    return Forecast(
        reuse_bytes=plan.reuse_bytes,
        resume_bytes=sum(each.resume_bytes for each in outlooks),
        sources=tuple(
            SourceForecast(source.kind, source.url, moved[source.url], held.why_not(source))
            for source in (*sources.peers, *sources.stores)
        ),
        table_bytes=sum(each.table_bytes for each in outlooks),
        repair_bytes=sum(each.repair_bytes for each in outlooks),
        rebuilt_bytes=sum(each.rebuilt_bytes for each in outlooks),
        shortfalls=tuple(
            Shortfall(each.artifact, each.reason) for each in outlooks if each.reason is not None
        ),
        disk_peak_bytes=sum(each.disk_bytes for each in outlooks),
    )


class _Held:
    """The sizes of the objects that each source says it has, asked for once."""

    def __init__(
        self, sources: Sources, artifacts: Sequence[ArtifactFile], now_s: Callable[[], float]
    ) -> None:
        self._now_s = now_s
        self._sizes: dict[tuple[str, str], int] = {}
        self._unavailable: dict[str, GenctlError] = {}
        if not artifacts:
            return
        self._ids = [each.blake3 for each in artifacts]
        # Each of them has threads of its own: one that is silent holds up no other.
        with ThreadPoolExecutor(SOURCES_AT_ONCE) as pool:
            list(pool.map(self._ask_all, (*sources.peers, *sources.stores)))

    def __call__(self, place: Place) -> int:
        """How many bytes stand there, from the place's offset on."""
        size_bytes = self._sizes.get((place.source.url, place.key), 0)
        return max(0, size_bytes - place.offset)

    def why_not(self, source: Source) -> GenctlError | None:
        """Why the source could not be asked, if it could not."""
        return self._unavailable.get(source.url)

    @property
    def is_partial(self) -> bool:
        """Whether some source could not be asked."""
        return bool(self._unavailable)

    def _ask_all(self, source: Source) -> None:
        questions: list[Callable[[], Iterable[ObjectInfo]]]
        if source.kind == "peer":
            # Peers are not asked for listings: nothing bounds what one lists.
            keys = [key for each in self._ids for key in (artifact_key(each), table_key(each))]
            questions = [partial(_stat, source, key) for key in keys]
        else:
            prefixes = [symbol_key(each, 0).rpartition("/")[0] + "/" for each in self._ids]
            questions = [partial(source.store.list, prefix) for prefix in prefixes]
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            list(pool.map(partial(self._ask, source), questions))

    def _ask(self, source: Source, question: Callable[[], Iterable[ObjectInfo]]) -> None:
        if source.url in self._unavailable:
            return
        try:
            for info in question():
                self._sizes[source.url, info.key] = info.size_bytes
        except (RetryError, DiskError, LengthExceeded, ExpansionExceeded) as error:
            self._unavailable[source.url] = error
            # Whom a fetch asks after it depends on that.
            source.health.failed(self._now_s())


class _Outlook:
    """One artifact on the way it is going to take."""

    def __init__(
        self,
        artifact: ArtifactFile,
        residence: Residence,
        sources: Sources,
        held: _Held,
        incoming: Path,
    ) -> None:
        self.artifact = artifact
        self.moved: Counter[str] = Counter()
        self.resume_bytes = 0
        self.table_bytes = 0
        self.repair_bytes = 0
        self.rebuilt_bytes = 0
        self.disk_bytes = 0
        self.reason: str | None = None
        tables = Tables(residence.tables, sources, Counting(), _Untimed())
        self._chunks = SignedChunks(artifact, tables.find)
        self._geometry = self._chunks.geometry
        self._sources = sources
        self._held = held
        self._has_table = kept_table(self._chunks, residence.tables) is not None
        self._in_place = residence.artifact_path(artifact.blake3)
        self._growth_bytes = residence.growth_bytes(artifact, incoming)
        self._arrived = incoming / artifact.blake3

    def follow(self) -> _Outlook:
        """Take every step of it."""
        if not self._has_table and not self._chunks.is_single:
            self.disk_bytes += self._geometry.table_size_bytes
        runs = list(self._still_missing())
        if not self._chunks.is_single and not self._find_table():
            self._fall_short("no symbol has an intact table")
            return self
        self.resume_bytes = self.artifact.size_bytes - sum(run.in_symbol.length for run in runs)
        losses: dict[int, set[int]] = {}
        for run in runs:
            for chunk in self._read(run):
                losses.setdefault(chunk, set()).add(run.number)
        if losses:
            self._mend(losses)
        return self

    def _still_missing(self) -> Iterable[Run]:
        """What has to be read, given what is on the disk."""
        size_bytes = self.artifact.size_bytes
        path = self._in_place
        there_bytes = files.plain_size_bytes(path) or 0
        if there_bytes != size_bytes:
            path = self._arrived
            there_bytes = files.plain_size_bytes(path) or 0
        self.disk_bytes += self._growth_bytes
        if there_bytes:
            try:
                return list(missing_runs(self._chunks, path))
            except GenctlError:
                pass  # no table, and so nothing is known to be good
        return source_runs(self._geometry)

    def _find_table(self) -> bool:
        if self._has_table:
            return True
        size_bytes = self._geometry.table_size_bytes
        for place, _ in self._sources.of_table(self.artifact.blake3, self._geometry):
            there_bytes = min(self._held(place), size_bytes)
            self.moved[place.source.url] += there_bytes
            self.table_bytes += there_bytes
            if there_bytes == size_bytes:
                self._has_table = True
                return True
        return False

    def _read(self, run: Run) -> set[int]:
        """Count a run's bytes; the chunks that nobody has."""
        missing = set(run.chunks)
        for place in self._sources.of_run(self.artifact.blake3, run):
            for part in run.parts(missing):
                skipped_bytes = part.in_symbol.offset - run.in_symbol.offset
                there_bytes = max(0, self._held(place) - skipped_bytes)
                there_bytes = min(there_bytes, part.in_symbol.length)
                self.moved[place.source.url] += there_bytes
                if not self._geometry.is_source(run.number):
                    self.repair_bytes += there_bytes
                missing -= {
                    chunk for chunk in part.chunks if sum(part.within(chunk)) <= there_bytes
                }
        return missing

    def _mend(self, losses: dict[int, set[int]]) -> None:
        """Count the repair chunks that stand in for what is lost."""
        given = dict.fromkeys(losses, 0)
        for number in range(self._geometry.k, self._geometry.m):
            short = sorted(column for column in losses if given[column] < len(losses[column]))
            for run in runs_of(self._geometry, number, short):
                for chunk in set(run.chunks) - self._read(run):
                    given[chunk] += 1
        if any(given[column] < len(lost) for column, lost in losses.items()):
            self._fall_short(f"more is lost than it survives, {self.artifact.symbols.survives}")
        elif not self._find_table():
            self._fall_short("no symbol has an intact table")
        for column, lost in losses.items():
            self.rebuilt_bytes += sum(
                self._geometry.chunk_range(number, column).length for number in lost
            )

    def _fall_short(self, reason: str) -> None:
        unless = "; a source does not answer" if self._held.is_partial else ""
        self.reason = reason + unless


class _Untimed:
    """Reads tables; what is foreseen has no deadline."""

    def get(self, place: Place, length: int) -> bytes:
        return place.source.store.get(place.key, offset=place.offset, length=length)

    def check_deadline(self) -> None:
        pass


def _stat(source: Source, key: str) -> list[ObjectInfo]:
    info = source.store.stat(key)
    return [] if info is None else [info]
