"""`mars.remote.open`: a file at a URL, with the credentials that the session was given."""

from __future__ import annotations

from typing import IO, Any

from mars.attempt import context
from mars.sessions.opening import get_default_session


def open(url: str, mode: str = "rb", **options: Any) -> IO[Any]:  # noqa: A001 (as `mr.open`)
    r"""Open a file at a URL, such as ``s3://bucket/train.csv``, inside a call or outside.

    Parameters
    ----------
    url : str
        What fsspec opens: ``s3://``, ``oss://``, ``abfs://``, ``hdfs://``, ``sftp://``,
        ``https://``, ``file://`` and others, or a path. ``a.zip::s3://…`` leads through an archive.
    mode : str, default "rb"
        As of the builtin ``open``: ``"r"``, ``"w"``, ``"wb"``, …
    **options
        ``compression`` ("infer": by the name), ``encoding``, ``errors`` and ``newline``, as of
        `fsspec.open`; further ones go to the store, and win over those of the session.

    Returns
    -------
    file
        Use it in a ``with`` block, or close it. What is written may be there only then.

    Raises
    ------
    ImportError
        fsspec, or the package for this kind of URL, is not installed where the call runs.
    OSError
        The store refuses, or there is no such file (`FileNotFoundError`, `PermissionError`).

    Notes
    -----
    The credentials are the ``storage_options`` of `new_session`. Inside a call plain fsspec, and
    what uses it, such as ``pandas.read_csv``, has them as well. See docs/howto/data.md.

    Examples
    --------
    >>> def first(url: str) -> str:
    ...     with open(url, "r") as file:
    ...         return file.readline().strip()
    >>> with open("memory://docs/train.csv", "w") as file:
    ...     _ = file.write("id,target\n")
    >>> first("memory://docs/train.csv")
    'id,target'
    """
    try:
        import fsspec
    except ImportError:
        raise ImportError(
            "mars.remote.open needs fsspec where it is called: pip install 'mars-remote[fsspec]', "
            "and what the URL needs, such as s3fs"
        ) from None
    if context.current() is None:  # in a call the settings of fsspec have them
        session = get_default_session()
        storage = None if session is None else session.engine.storage
        if storage is not None:
            named = {part.partition("://")[0] for part in url.split("::")}
            given = {one: some for one, some in storage.options.items() if one in named}
            options = {**given, **options}  # fsspec takes options of each protocol by its name
    return fsspec.open(url, mode, **options).open()  # type: ignore[no-any-return]


__all__ = ["open"]
