"""The command ``pte-tracking import``."""

from __future__ import annotations

import contextlib
import fnmatch
import inspect
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pte_tracking._cli.arguments import format_error, suggest_path
from pte_tracking._cli.rendering import AsJson, echo, fail, print_json
from pte_tracking._delivery.garbage import collect_garbage_rarely
from pte_tracking._runs.directory_lock import DirectoryInUseError
from pte_tracking._runs.importing import ImportedRun, RunImport
from pte_tracking._store.layout import MANIFEST, check_directory
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.similar import suggest
from pte_tracking.sinks import Sink, check_client, get_sink, load_sinks

#: URI scheme. A single letter is a drive of Windows.
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")


def import_run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="TensorBoard event file or directory of one run, JSON log, CSV file, or runs:/ID of MLflow.",
        ),
    ],
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", show_default=False, help="Run directory to create. It must not exist, or be empty."
        ),
    ],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME", help="Backend that reads the source. Defaults to the one that can read it."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option for reading, such as step=COLUMN. May be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Display name of the run. Defaults to the name in the source.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import a run that another program logged.

    Read TensorBoard event files, JSON logs of Chainer and pytorch-pfn-extras, CSV files, and MLflow runs.
    """
    collect_garbage_rarely()
    try:
        check_directory("RUN", run_dir)
        sink = get_sink(from_) if from_ else _find_sink(source)
        check_client(sink)
        options = _parse_options(sink, option or [])
    except (ValueError, TypeError) as error:
        fail(str(error), 2)
    is_uri = _SCHEME.match(source) and not os.path.lexists(source)
    try:
        # Client libraries print messages, which would be in the middle of the JSON output.
        with contextlib.redirect_stdout(sys.stderr), RunImport(Path(os.path.abspath(run_dir))) as target:
            events = sink.read_run(source, target.files, **options)
            imported = target.write(events, source if is_uri else os.path.abspath(source), name)
    except (OSError, LookupError, ValueError, DirectoryInUseError) as error:
        fail(mask_secrets(_format(error, source)), 1)
    if as_json:
        print_json(msgspec.to_builtins(imported) | {"sink": sink.name})
        return
    echo(f"{run_dir}: imported {_describe(imported)} from {sink.name}")
    echo(f"Deliver the run with: pte-tracking sync {shlex.quote(str(run_dir))} --to NAME")


def _find_sink(source: str) -> type[Sink]:
    """Return the sink that reads a source.

    Raises:
        ValueError: If no sink or several sinks can read it.
    """
    if os.path.isfile(os.path.join(source, MANIFEST)):
        raise ValueError(
            f"{source} is a run already. Deliver it with: pte-tracking sync RUN --to NAME. To import one of its files, "
            "pass the file."
        )
    readers = [sink for sink in load_sinks() if sink.sources]
    found = _select(readers, source)
    if len(found) == 1:
        return found[0]
    names = ", ".join(reader.name for reader in found or readers)
    if found:
        raise ValueError(f"{source} contains files of several formats. Select one with --from: {names}")
    if _SCHEME.match(source) or os.path.exists(source):
        patterns = ", ".join(pattern for reader in readers for pattern in reader.sources)
        raise ValueError(
            f"{source} has no known format. Known sources: {patterns}. Select a format with --from: {names}"
        )
    raise ValueError(f"{source}: no such file or directory{suggest_path(Path(source))}")


def _select(readers: Sequence[type[Sink]], source: str) -> list[type[Sink]]:
    """Return the sinks that read a source: by its scheme or name, by the files in a directory, or by those below."""
    if not os.path.lexists(source):
        return [reader for reader in readers if source.startswith(_schemes(reader))]
    if not os.path.isdir(source):
        return [reader for reader in readers if _matches(reader.sources, [os.path.basename(source)])]
    below = [names for _, _, names in os.walk(source)]
    for found in (below[:1], below[1:]):
        names = list(itertools.chain.from_iterable(found))
        selected = [
            reader
            for reader in readers
            if _matches([pattern for pattern in reader.sources if not pattern.startswith("*.")], names)
        ]
        if selected:
            return selected
    return []


def _schemes(reader: type[Sink]) -> tuple[str, ...]:
    return tuple(pattern for pattern in reader.sources if pattern.endswith(":"))


def _matches(patterns: Iterable[str], names: Sequence[str]) -> bool:
    return any(fnmatch.filter(names, pattern) for pattern in patterns)


def _parse_options(sink: type[Sink], given: list[str]) -> dict[str, str]:
    """Parse options, which are the keyword-only arguments of ``read_run``.

    Raises:
        ValueError: If an option is unknown, given twice, or has no value.
    """
    if not sink.sources:
        readable = ", ".join(reader.name for reader in load_sinks() if reader.sources)
        raise ValueError(f"--from {sink.name}: this backend cannot read runs. Backends that can: {readable}.")
    parameters = inspect.signature(sink.read_run).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    options: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--option: expected KEY=VALUE, got {text!r}")
        if key not in known:
            raise ValueError(
                f"--option: {sink.name} has no option {key!r} for reading.{suggest(key, known)} "
                f"Options: {', '.join(known) or 'none'}."
            )
        if key in options:
            raise ValueError(f"--option: {key!r} is given twice")
        options[key] = value
    return options


def _format(error: Exception, source: str) -> str:
    if isinstance(error, OSError):
        return format_error(error)
    if isinstance(error, DirectoryInUseError):
        return str(error)
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    # A reader may report a value without its file.
    return text if source in text or str(Path(source)) in text else f"{source}: {text}"


def _describe(imported: ImportedRun) -> str:
    counts = {"data point": imported.points, "metric": imported.metrics, "parameter": imported.params}
    counts |= imported.events
    return ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count) or "no values"
