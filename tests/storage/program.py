"""What a user's program does with data at a URL, on one engine. Run by `test_stores`, as a process.

Reads from stdin, as JSON: the base of the URLs, the storage options, the engine, what is secret in
the options. The options stand nowhere else, so whatever this finds of them elsewhere has leaked.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import mars
import mars.remote as mr


def read(url: str) -> dict[str, Any]:
    """The same file in three ways."""
    import fsspec
    import pandas as pd

    with mr.open(url, "r") as file:
        by_mars = file.read()
    with fsspec.open(url, "rt") as file:
        by_fsspec = file.read()
    # pandas hands sftp:// to urllib, which does not know it: there it gets the open file.
    frame = pd.read_csv(mr.open(url) if url.startswith("sftp:") else url)
    return {"mars": by_mars, "fsspec": by_fsspec, "pandas": int(frame.target.sum())}


def write(url: str, rows: int) -> int:
    with mr.open(url, "w") as file:
        file.write("id,target\n" + "".join(f"{row},{row * row}\n" for row in range(rows)))
    return rows


def read_nested(url: str) -> dict[str, Any]:
    print("asks for a call")
    found: dict[str, Any] = mr.spawn(read, (url,)).execute().fetch()
    return found


def fail(url: str) -> None:
    with mr.open(url) as file:
        raise ValueError(file.read())


def visible(parts: list[str]) -> list[str]:
    """Where somebody who looks at the processes of this session finds a secret."""
    found = []
    own = os.getsid(0)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("environ", "cmdline"):
            try:
                if os.getsid(int(pid)) != own:
                    continue
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    text = file.read()
            except OSError:  # it has just ended
                continue
            # The text that is looked for is put together here, so that it is in no argument.
            found += [f"{what} of {pid}" for part in parts if part[::-1].encode() in text]
    return found


def main() -> None:
    told = json.load(sys.stdin)
    base, engine = told["base"], told["engine"]
    reversed_secrets = [one[::-1] for one in told["secrets"]]
    url = f"{base}/train.csv"
    with mars.new_session(
        engine=engine, n_cpu=2, storage_options=told["options"], checkpoint="kept"
    ) as session:
        with mr.open(url, "w") as file:  # outside of calls, too
            file.write("id,target\n0,4\n1,5\n")
        calls: dict[str, Any] = {
            "read": mr.spawn(read, (url,)),
            "nested": mr.spawn(read_nested, (url,)),
            "wrote": mr.spawn(write, (f"{base}/made.csv", 5)),
            "leaks": mr.spawn(visible, (reversed_secrets,)),
        }
        found = dict(
            zip(calls, mr.ExecutableTuple(list(calls.values())).execute().fetch(), strict=True)
        )
        found["thread"] = mr.spawn(read, (url,), threads=2).execute().fetch()
        found["again"] = mr.spawn(read, (f"{base}/made.csv",)).execute().fetch()["pandas"]
        failed = mr.spawn(fail, (url,))
        try:
            failed.execute()
        except ValueError as error:
            found["failed"] = str(error)
            shown = "".join(getattr(error, "__notes__", ()))
        logs = "".join(str(one.fetch_log()) for one in [*calls.values(), failed])
        session.report().save("report.json")
        shown += f"{session!r} {vars(session.engine)!r} {logs}"
        options = session.engine.storage
        shown += f"{options!r} {options}"
    for folder, _, names in os.walk("."):
        for name in names:
            with open(os.path.join(folder, name), "rb") as data:
                shown += data.read().decode("latin-1")
    found["shown"] = [one for one in told["secrets"] if one in shown]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
