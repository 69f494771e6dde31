"""Run by ``make dist`` in an environment that has mars-remote and what it needs, nothing else.

It is no test of pytest, which is not there. It uses what a user uses first, and fails loudly.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

warnings.simplefilter("error")


def say(number: int) -> int:
    print("working on", number)
    return number * number


def main() -> None:
    import mars
    import mars.remote as mr

    assert str(Path(__file__).resolve().parent) not in sys.path, (
        "run it with python -P: folders beside it, such as tests/dask, would stand in for packages"
    )
    place = Path(mars.__file__).resolve()
    assert sys.prefix in str(place), f"not the installed one: {place}"
    assert (place.parent / "py.typed").is_file(), "types are not known to be there"
    version = importlib.metadata.version("mars-remote")
    assert version == mars.__version__, (version, mars.__version__)
    for name in ("numpy", "dask", "distributed", "ray", "pandas", "joblib"):
        assert importlib.util.find_spec(name) is None, (
            f"{name} is here: the environment is not bare"
        )
    squares = [mr.spawn(say, args=(i,)) for i in range(4)]
    assert mr.spawn(sum, args=(squares,)).execute().fetch() == 14
    assert squares[3].log == "working on 3\n"
    assert mars.map(say, range(100)).execute(echo="failures").fetch()[7] == 49
    mars.stop_server()
    shown = subprocess.run(
        [Path(sys.executable).with_name("mars"), "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert version in shown.stdout, shown.stdout
    subprocess.run([sys.executable, "-m", "mars", "doctor"], check=True, capture_output=True)
    print(f"mars-remote {version} works on its own")


if __name__ == "__main__":
    main()
