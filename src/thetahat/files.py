"""Every file that the library writes: written beside its place, brought to the disk, then renamed.

A crash, a kill or a full disk leaves the file that was there, whole, or the new one, whole: never half of
one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BadArgument, NotWritten, ThetahatError

PART = ".part"  # how the name of an unfinished file ends
_PATHS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
)  # not of the disk


@contextmanager
def replacing(path: str | Path, *, alone: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; at the end of the block it takes the name `path`.

    Parameters
    ----------
    path
        the file
    alone
        no other process writes this file: what a kill left of an earlier attempt is then written over

    Raises
    ------
    BadArgument
        no such folder, no permission, or a name that no file can have
    NotWritten
        a full disk, or one that fails. What stood at `path` is as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.txt"
    ...     with replacing(file) as part:
    ...         _ = part.write_text("whole")
    ...     file.read_text(), [each.name for each in Path(folder).iterdir()]
    ('whole', ['a.txt'])
    """
    path = usable(path)
    token = "" if alone else f".{secrets.token_hex(4)}"
    part = path.with_name(
        f".{path.name[:40]}{token}{PART}"
    )  # short: the name of the file itself may be as long as names can be
    try:
        part.touch(exist_ok=alone)  # a folder that is missing, or may not be written to, is known at once
        mode = (
            path if path.exists() else part
        ).stat().st_mode & 0o777  # who may read it: a library may write a file of its own here
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(mode)
        os.replace(part, path)
    except OSError as error:
        if isinstance(error, ThetahatError):
            raise
        if error.errno in _PATHS:
            raise BadArgument(f"{path} cannot be written: {error.strerror or error}.") from error
        raise NotWritten.of(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` to write to; at the end of the block it takes the name `path`, which is then there whole.

    Raises
    ------
    BadArgument
        something has that name already, or the folder in which it would lie does not exist
    NotWritten
        a full disk, or one that fails. Nothing is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with new_folder(Path(folder) / "model") as part:
    ...         _ = (part / "config.json").write_text("{}")
    ...     sorted(each.name for each in Path(folder).rglob("*"))
    ['config.json', 'model']
    """
    path = usable(path)
    if path.exists():
        raise BadArgument(f"{path} exists. Give the path of a new folder.")
    if not path.resolve().parent.is_dir():
        raise BadArgument(f"{path}: the folder {path.resolve().parent} does not exist. Make it first.")
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{PART}")
    try:
        part.mkdir()
        yield part
        part.replace(path)
    except OSError as error:
        if isinstance(error, ThetahatError):
            raise
        if error.errno in _PATHS:
            raise BadArgument(f"{path} cannot be written: {error.strerror or error}.") from error
        raise NotWritten.of(path, error, "Nothing was written.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: str | Path, text: str, *, alone: bool = False) -> Path:
    """The text as one file, in UTF-8, as of `replacing`."""
    with replacing(path, alone=alone) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def usable(path: str | Path, more: str = "") -> Path:
    """The path, if a file can have it. `more`: another sentence of the message, if not.

    Raises
    ------
    BadArgument
        a NUL character, or a name that is too long for a file

    Examples
    --------
    >>> usable("a\\0b")
    Traceback (most recent call last):
    thetahat.errors.BadArgument: the path 'a\\x00b' holds a NUL character, which no file name can. Give another name.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise BadArgument(
            f"the path {_short(text)} holds a NUL character, which no file name can. Give another name."
        )
    try:
        os.lstat(text)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadArgument(
                f"the path {_short(text)} is too long for a file ({len(text)} characters). {more}".rstrip()
            ) from error
    except UnicodeEncodeError as error:
        raise BadArgument(f"the path {_short(text)} holds a character that no file name can.") from error
    return Path(path)


def leftovers(folder: Path) -> list[Path]:
    """The unfinished files that a kill left in a folder."""
    return [each for each in folder.glob(f".*{PART}") if each.is_file()]


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:60]}…{shown[-15:]}"
