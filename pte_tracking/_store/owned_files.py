"""Files that belong to a run directory. No file outside of the directory is read or changed through a link."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from pte_tracking._platform.files import open_without_links, replace_file, sync_directory, sync_file
from pte_tracking._store.files import create_temporary


def open_owned(path: Path, directory: Path, flags: int = 0) -> int:
    """Open a file of a run directory for reading and writing. It is created if it does not exist.

    No file outside of the directory is changed. A file with other hard links, such as those of a backup made with
    ``cp -al``, is replaced by a copy first.

    Args:
        path: Path of the file below the directory. Missing directories are created.
        directory: Run directory.
        flags: Further flags of :func:`os.open`.

    Returns:
        The file descriptor.

    Raises:
        OSError: If the file or a directory below the run directory is a symbolic link, or if it is not a regular file.

    Example:
        >>> import os, pathlib, tempfile
        >>> from pte_tracking.sinks import open_owned
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     run_directory = pathlib.Path(directory)
        ...     descriptor = open_owned(run_directory / "val/log", run_directory)
        ...     os.close(descriptor)
        ...     (run_directory / "val/log").exists()
        True
    """
    make_owned_directory(path.parent, directory)
    flags |= os.O_RDWR | os.O_CREAT
    try:
        descriptor = open_without_links(path, flags)
    except OSError as error:
        raise _link_error(path) if error.errno == errno.ELOOP else error from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Expected a regular file. Remove the entry", str(path))
        if status.st_nlink == 1:
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    _replace_by_copy(path)
    return open_without_links(path, flags)


def make_owned_directory(path: Path, directory: Path) -> None:
    """Create a directory below a run directory, without following symbolic links below the run directory.

    Args:
        path: The directory to create, or the run directory itself.
        directory: Run directory.

    Raises:
        OSError: If a directory on the way is a symbolic link, or cannot be created.
    """
    parts = path.relative_to(directory).parts
    if ".." in parts:
        raise OSError(errno.EINVAL, "Expected a path below the run directory", str(path))
    for part in parts:
        directory = directory / part
        if directory.is_symlink():
            raise _link_error(directory)
        if not directory.is_dir():
            directory.mkdir(exist_ok=True)  # without its parents: a run directory that was removed stays removed
            sync_directory(directory.parent)


def owned_path(directory: Path, name: str) -> Path | None:
    """Return the path of a file or directory of a run, unless it is located outside of the run directory.

    Args:
        directory: Run directory.
        name: Path relative to the directory, as in an event.

    Returns:
        The path. None if it does not exist, or if symbolic links lead out of the directory.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import owned_path
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     pathlib.Path(directory, "link").symlink_to("/etc/hostname")
        ...     print(owned_path(pathlib.Path(directory), "link"))
        None
    """
    path, root = directory / name, Path(os.path.realpath(directory))
    real = Path(os.path.realpath(path))
    is_inside = real == root or root in real.parents
    return path if is_inside and path.exists() else None


def check_unchanged(fd: int, path: Path, size: int) -> None:
    """Check that no other program has changed an open file, before more is written to it.

    Args:
        fd: Descriptor of the file.
        path: Path with which the file was opened.
        size: Number of bytes that were written.

    Raises:
        OSError: If the file was deleted, replaced, or truncated.

    Example:
        >>> import os, pathlib, tempfile
        >>> from pte_tracking.sinks import check_unchanged, open_owned
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "log.txt")
        ...     fd = open_owned(path, path.parent)
        ...     size = os.write(fd, b"row")
        ...     check_unchanged(fd, path, size)
        ...     path.unlink()
        ...     try:
        ...         check_unchanged(fd, path, size)
        ...     except OSError as error:
        ...         print(str(error).replace(directory, "result"))
        ...     os.close(fd)
        result/log.txt was deleted, replaced, or truncated, and is written again.
    """
    status = os.fstat(fd)
    try:
        is_unchanged = status.st_size >= size and os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        is_unchanged = not path.parent.exists()  # The whole directory was moved, together with the file.
    if not is_unchanged:
        raise OSError(f"{path} was deleted, replaced, or truncated, and is written again.")


def list_owned_files(directory: Path, path: Path) -> tuple[list[Path], int]:
    """List the files of a directory of a run that can be delivered.

    Links out of the run directory, links to directories, pipes, and unreadable files are left out.

    Args:
        directory: Run directory.
        path: File, or directory below the run directory.

    Returns:
        The files in sorted order, and the number of entries that were left out.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import list_owned_files
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     run_directory = pathlib.Path(directory)
        ...     (run_directory / "data").touch()
        ...     (run_directory / "link").symlink_to("/etc/hostname")
        ...     files, left_out = list_owned_files(run_directory, run_directory)
        ...     [file.name for file in files], left_out
        (['data'], 1)
    """
    if not path.is_dir():
        return [path], 0
    files: list[Path] = []
    left_out = 0

    def count_unreadable(error: OSError) -> None:
        nonlocal left_out
        left_out += 1

    for folder, folders, names in os.walk(path, onerror=count_unreadable):
        left_out += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        for name in names:
            file = Path(folder, name)
            is_kept = owned_path(directory, os.path.relpath(file, directory)) is not None
            if is_kept and file.is_file() and os.access(file, os.R_OK):
                files.append(file)
            else:
                left_out += 1
    return sorted(files), left_out


def _link_error(path: Path) -> OSError:
    message = "Symbolic links in a run directory are not followed. Remove the link or replace it by a copy"
    return OSError(errno.ELOOP, message, str(path))


def _replace_by_copy(path: Path) -> None:
    """Replace a file that has other hard links, which keep the old file."""
    temporary = create_temporary(path)
    try:
        shutil.copyfile(path, temporary, follow_symlinks=False)
        sync_file(temporary)  # the old file may be durable
        replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
