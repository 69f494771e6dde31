"""A program with PyODPS' entry object ``o`` in its calls. Run by `test_pyodps`, as a process.

Reads from stdin, as JSON: the endpoint, the key and the engine.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from odps import ODPS

import mars
import mars.remote as mr


def total(o: Any, name: str) -> int:
    import pandas as pd

    with o.open_resource(name, mode="r") as file:
        frame = pd.read_csv(file)
    print("read", len(frame), "rows")
    return int(frame.target.sum())


def keep(o: Any, name: str, *parts: int) -> list[str]:
    with o.open_resource(name, mode="w") as file:
        file.write(",".join(map(str, parts)))
    return sorted(one for one in ("train.csv", "sums.txt", "not-there") if o.exist_resource(one))


def whole() -> None:
    told = json.load(sys.stdin)
    o = ODPS("otto", told["key"], "otto", told["endpoint"])
    o.create_resource("train.csv", "file", file_obj="id,target\n0,4\n1,5\n")
    found: dict[str, Any] = {}
    with mars.new_session(engine=told["engine"], n_cpu=2, checkpoint="kept"):
        options = {"cache": False}  # a checkpoint keeps arguments, and the key is in `o`
        sums = [mr.spawn(total, (o, "train.csv"), **options) for _ in range(3)]
        kept = mr.spawn(keep, (o, "sums.txt", *sums), **options)
        found["there"] = kept.execute().fetch()
        found["log"] = str(sums[0].fetch_log()).strip()
        found["closure"] = mr.spawn(lambda: total(o, "train.csv"), **options).execute().fetch()
        failed = mr.spawn(total, (o, "nothing.csv"), **options)
        try:
            failed.execute()
        except Exception as error:
            shown = f"{error!r} {getattr(error, '__notes__', '')} {failed.fetch_log()}"
            found["error"] = type(error).__name__
    with o.open_resource("sums.txt", mode="r") as file:
        found["kept"] = file.read()
    for folder, _, names in os.walk("."):
        for name in names:
            with open(os.path.join(folder, name), "rb") as data:
                shown += data.read().decode("latin-1")
    found["leaks"] = told["key"] in shown
    print(json.dumps(found))


if __name__ == "__main__":
    whole()
