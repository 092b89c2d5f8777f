"""Select the snapshot that a training resumes from."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pte_tracking._distributed.world import World
from pte_tracking._runs.run import Run
from pte_tracking._runs.writer import RunPosition
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, peek
from pte_tracking._snapshots.retention import BestPolicy
from pte_tracking._snapshots.template import Template
from pte_tracking._store.journal_reader import effective_ranges, seq_at
from pte_tracking._store.layout import JOURNAL
from pte_tracking.sinks import get_sink, installed_sinks

_T = TypeVar("_T")

_logger = logging.getLogger("pte_tracking")


class SelectedSnapshot(NamedTuple):
    """A snapshot to go on from.

    Attributes:
        path: Its file.
        state: What it holds.
        fetched_to: The folder that was made for it, if it comes from a backend.
        sha256: Its digest, if it was checked against that.
    """

    path: Path
    state: dict[str, Any]
    fetched_to: Path | None = None
    sha256: str | None = None

    def clean_up(self) -> None:
        """Remove what was fetched and is not needed any more."""
        if self.fetched_to is not None:
            shutil.rmtree(self.fetched_to, ignore_errors=True)


class _Candidate(NamedTuple):
    path: Path
    sha256: str | None = None
    fetched_to: Path | None = None


def select_snapshot(
    run: Run, source: str | os.PathLike[str], templates: Sequence[Template], best: BestPolicy | None, world: World
) -> SelectedSnapshot | None:
    """Find a snapshot, check it, each rank a part of it, and read it; called on all ranks.

    Args:
        run: The run, not open yet.
        what: ``"latest"``, ``"best"``, a file, or a tracked checkpoint's URI.
        templates: The names that snapshots in the run's directory have.
        best: What makes a snapshot the best.
        world: The ranks.

    Returns:
        The snapshot; None if there is none yet.

    Raises:
        SnapshotError: The file, or what was fetched, is damaged or no snapshot.
        LookupError: There is no such checkpoint.
        ValueError: ``what`` is nothing of these, or it is not said what is best.
        RuntimeError: The run is open, or one of these has happened on rank 0 alone.
    """
    candidates = world.run_on_rank_zero("resume()", lambda: list(_candidates(run, source, templates, best)))
    if source in ("latest", "best"):
        return _first_intact(candidates, world)
    (named,) = candidates
    try:
        return _load(named, world)
    except BaseException:
        if world.rank == 0 and named.fetched_to is not None:
            shutil.rmtree(named.fetched_to, ignore_errors=True)
        raise


def _candidates(
    run: Run, source: str | os.PathLike[str], templates: Sequence[Template], best: BestPolicy | None
) -> Iterable[_Candidate]:
    if run.is_open:
        raise RuntimeError("resume(): the run has begun, something was logged already; resume first")
    if source == "latest":
        return _candidates_by_step(run, templates)
    if source == "best":
        return _candidates_by_value(run, best)
    if isinstance(source, str) and re.match(r"[A-Za-z][\w+.-]+:/", source) and not Path(source).exists():
        return [_fetch(run, source)]
    return [_Candidate(Path(os.path.abspath(source)))]


def _load(candidate: _Candidate, world: World) -> SelectedSnapshot:
    state = load(candidate.path, candidate.sha256, world)
    return SelectedSnapshot(candidate.path, state, candidate.fetched_to, candidate.sha256)


def _candidates_by_step(run: Run, templates: Sequence[Template]) -> Iterable[_Candidate]:
    """The files of a run's snapshots, by the steps in the journal and in the files, with their digests where known."""
    digests: list[tuple[int, Path, str | None]]
    digests = [(one.step, run.directory / one.path, one.sha256) for one in run.checkpoints()]
    digests += [(step, path, None) for path, step in find_unlisted(run, templates).items()]
    return [_Candidate(path, sha256) for _, path, sha256 in sorted(digests, key=lambda item: item[0], reverse=True)]


def find_unlisted(run: Run, templates: Sequence[Template]) -> dict[Path, int]:
    """Files that were published when a kill prevented the announcement, with their steps."""
    known = {one.path: one.step for one in run.checkpoints()}
    found = {}
    for template in templates:
        for name in template.list_files(run.directory):
            path = run.directory / name
            point = _read_position(path) if name not in known or template.is_fixed else None
            if point is not None and point["step"] > known.get(name, -1) and _is_effective(run, point):
                found[path] = point["step"]
    return found


def _candidates_by_value(run: Run, best: BestPolicy | None) -> Iterable[_Candidate]:
    if best is None:
        raise ValueError(
            "resume('best'): it is not said what is best; give the manager a snapshot(keep_best=('val/loss', 'min', 3))"
        )
    all_of_them = run.checkpoints()
    ranked = best.ranked(all_of_them)
    if all_of_them and not ranked:
        keys = sorted({key for one in all_of_them for key in one.values})
        raise LookupError(
            f"resume('best'): no snapshot has a finite value of {best.key!r}; they have {', '.join(keys) or 'none'}"
        )
    return [_Candidate(run.directory / one.path, one.sha256) for one in ranked]


def _first_intact(candidates: Iterable[_Candidate], world: World) -> SelectedSnapshot | None:
    broken = 0
    warn = _logger.warning if world.rank == 0 else _logger.debug
    for candidate in candidates:
        try:
            found = _load(candidate, world)
        except SnapshotError as error:
            warn("resume: %s; it is passed over", error)
            broken += 1
            continue
        if broken:
            warn("resume: goes on from %s instead", candidate.path)
        return found
    if broken:
        warn("resume: none of %d snapshots is intact; the run begins again", broken)
    return None


def _fetch(run: Run, uri: str) -> _Candidate:
    scheme = uri.partition(":")[0]
    installed = [get_sink(name) for name in installed_sinks()]
    # The run's own sinks know where to look; others look where the environment says.
    able = [one for one in run.sinks if scheme in one.schemes]
    able += [one() for one in installed if scheme in one.schemes and not able]
    if not able:
        schemes = sorted(known for one in installed for known in one.schemes)
        raise ValueError(
            f"resume({uri!r}): no installed sink knows {scheme}:; known are {', '.join(schemes) or 'none'}, 'latest', "
            "'best', and files"
        )
    run.directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fetched-", dir=run.directory))
    try:
        return _Candidate(able[0].fetch(uri, folder), fetched_to=folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def is_run_of(run: Run, point: RunPosition) -> bool:
    beginning = run.start_position()
    return beginning is not None and beginning["id"] == point["id"]


def _is_effective(run: Run, point: RunPosition) -> bool:
    """Whether a point is one of the history as it now counts."""
    journal, position = run.directory / JOURNAL, point["position"]
    return (
        is_run_of(run, point)
        and seq_at(journal, position) == point["seq"]
        and any(first <= position <= last for first, last in effective_ranges(journal))
    )


def _read_position(path: Path) -> RunPosition | None:
    try:
        point: RunPosition | None = peek(path).get("run")
    except SnapshotError as error:
        _logger.warning("resume: %s; it is passed over", error)
        return None
    return point
