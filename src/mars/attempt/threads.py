"""The thread budget: native libraries inside a call use the call's cores, no more.

Two tools, because neither is enough alone. *Variables* count for libraries that are loaded later,
for all threads, and for child processes; a library reads them once, when it is loaded. The
libraries' *own functions* (through threadpoolctl) count for what is loaded already; with OpenMP
only for the thread that calls them, so `ThreadBudget.apply` has to be called in the thread that
runs the user's function.

Never limits Python threads that the user starts himself, never pins to cores. `environment` is
called by whoever starts a process, `ThreadBudget` by the attempt before each call.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from typing import Final, Protocol

_OPENMP: Final = "OMP_NUM_THREADS"

# What each of these reads where its own variable is not set; our setting its own must not
# override a smaller number that the user gave for all of them.
_FOLLOW_OPENMP: Final = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",  # OpenBLAS's old name, reads before OMP_NUM_THREADS
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_OTHERS: Final = (
    "VECLIB_MAXIMUM_THREADS",  # Accelerate on macOS
    "NUMBA_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",  # else numexpr prepares for, and logs about, all cores
    "RAYON_NUM_THREADS",  # tokenizers and other Rust extensions
    "POLARS_MAX_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "BLOSC_NTHREADS",
    "JULIA_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",  # joblib's cpu_count(): what n_jobs=-1 means in scikit-learn, LightGBM
    "PYTHON_CPU_COUNT",  # os.cpu_count() from Python 3.13 on; see `interpreter_options`
)
VARIABLES: Final = (_OPENMP, *_FOLLOW_OPENMP, *_OTHERS)

_ASKED: Final = "MARS_THREADS_ASKED"
"""Numbers that the user had set, as ``NAME=2 NAME=4``: once our own stand in the variables, a
process could not tell them apart, and a later and larger budget would stay at the first one."""

NAMES: Final = frozenset({*VARIABLES, _ASKED})
"""All variables that are set here."""


def environment(cpus: float, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which a process keeps to ``cpus`` cores.

    Parameters
    ----------
    cpus : float
        Cores of the call; rounded up, at least 1.
    environ : mapping
        Variables that the process would get otherwise. A smaller number in there stays.

    Returns
    -------
    dict of str to str
        To be added to ``environ``.
    """
    budget = _threads(cpus)
    asked = _asked(environ)
    for_openmp = min(budget, asked.get(_OPENMP, budget))
    added = {_OPENMP: for_openmp}
    added.update({name: asked.get(name, for_openmp) for name in _FOLLOW_OPENMP})
    added.update({name: asked.get(name, budget) for name in _OTHERS})
    variables = {name: str(min(budget, number)) for name, number in added.items()}
    variables[_ASKED] = " ".join(f"{name}={number}" for name, number in sorted(asked.items()))
    return variables


def interpreter_options(environ: Mapping[str, str]) -> list[str]:
    """Options for the interpreter of a process that `environment` is for.

    From Python 3.13 on it reads ``PYTHON_CPU_COUNT`` once, when it starts: a number of ours would
    be the answer of `os.cpu_count` under each later budget, too. One of the user's may be.
    """
    if sys.version_info < (3, 13):
        return []
    asked = sys._xoptions.get("cpu_count", _asked(environ).get("PYTHON_CPU_COUNT", "default"))
    return ["-X", f"cpu_count={asked}"]


class _Library(Protocol):
    """What threadpoolctl, which has no types, gives for a loaded library."""

    internal_api: str

    def set_num_threads(self, num_threads: int, /) -> object: ...


class ThreadBudget:
    """The budget of one worker process, as it changes from call to call.

    Parameters
    ----------
    cpus : float
        Budget under which the process was started, with `environment`'s variables in place.
    """

    def __init__(self, cpus: float) -> None:
        self.cpus = cpus
        self._libraries: list[_Library] = []
        self._modules = 0  # in sys.modules when we last looked for libraries
        self._set(cpus)

    def apply(self, cpus: float) -> None:
        """Keep what the calling thread runs next to ``cpus`` cores.

        Costs nothing when the budget is that of the call before, and milliseconds when it is
        not: then libraries loaded so far are told, also those loaded under another budget.
        """
        if cpus == self.cpus:
            return
        self._set(cpus)
        self.cpus = cpus

    def _set(self, cpus: float) -> None:
        variables = environment(cpus, os.environ)
        changed = {name for name, value in variables.items() if os.environ.get(name) != value}
        if not changed:
            return  # what is loaded was loaded under these very numbers
        os.environ.update(variables)
        import threadpoolctl

        if self._modules != len(sys.modules):
            # Looking takes ~3 ms with scikit-learn loaded, telling 0.1 ms. Native libraries
            # come with imports, so without new modules there is nothing new to find.
            self._libraries = threadpoolctl.ThreadpoolController().lib_controllers
            self._modules = len(sys.modules)
        for library in self._libraries:
            name = _VARIABLE_OF.get(library.internal_api, _OPENMP)
            library.set_num_threads(int(variables[name]))
        _tell_python_libraries(variables)


_VARIABLE_OF: Final = {
    "openmp": _OPENMP,
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}


def _tell_python_libraries(variables: Mapping[str, str]) -> None:
    """Libraries with pools of their own that can be told after they were imported.

    Polars and Rayon cannot: their pool keeps the size it got under the first budget.
    """
    for module, name in (("numexpr", "NUMEXPR_NUM_THREADS"), ("numba", "NUMBA_NUM_THREADS")):
        tell = getattr(sys.modules.get(module), "set_num_threads", None)
        if tell is None:
            continue
        try:
            tell(int(variables[name]))
        except Exception:  # noqa: BLE001  # above the size of a pool that is already there
            continue


def _threads(cpus: float) -> int:
    return max(1, math.ceil(cpus))


def _asked(environ: Mapping[str, str]) -> dict[str, int]:
    """Numbers that the user set, also if ours have replaced them in ``environ`` since."""
    if _ASKED in environ:
        pairs = [pair.partition("=") for pair in environ[_ASKED].split()]
        found = {name: _number(value) for name, _, value in pairs if name in VARIABLES}
    else:
        found = {name: _number(environ[name]) for name in VARIABLES if name in environ}
    return {name: number for name, number in found.items() if number is not None}


def _number(value: str) -> int | None:
    """The thread count a variable stands for; ``OMP_NUM_THREADS`` may list one per level."""
    first = value.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None
