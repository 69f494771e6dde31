"""The thread budget: native libraries inside a call use the call's cores, no more.

Two tools, because neither is enough alone. *Variables* count for libraries that are loaded later,
for all threads, and for child processes; a library reads them once, when it is loaded. The
libraries' *own functions* (through threadpoolctl) count for what is loaded already; with OpenMP
only for the thread that calls them, so `ThreadBudget.apply` has to be called in the thread that
runs the user's function.

A call may tell libraries another number, as with ``threadpool_limits(4)``. So they are asked after
calls (`ThreadBudget.differs`), and told the budget again (`ThreadBudget.reset`).

Never limits Python threads that the user starts himself, never pins to cores. `environment` is
called by whoever starts a process, `ThreadBudget` by the attempt before each call.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from mars import platform

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
        self._there = (0, 0)  # modules and shared libraries when we last looked for those
        self._loaded = -1  # shared libraries that this process had when we last looked at them
        # What tells the number of a library, by its path, and the variable that is for it.
        self._asked: dict[str, tuple[Callable[[], int], str]] = {}
        self._numbers: list[int] = []  # what each said when it had been told
        self._variables: dict[str, str] = {}
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
        self._numbers = []  # asked when somebody wants to know

    def differs(self) -> bool:
        """Whether libraries use another number of threads than the budget says.

        To be called in the thread that runs the user's function. Takes 5 us, and some 0.3 ms where
        libraries have been loaded since the last time.
        """
        loaded = platform.library_count()
        if loaded != self._loaded:
            self._loaded = loaded
            self._find_numbers()
        numbers = [ask() for ask, _ in self._asked.values()]
        if len(numbers) == len(self._numbers):
            return numbers != self._numbers or self._modules_differ()
        # Some are new, or another budget holds since. A library has what the variables said when it
        # was loaded, unless the call that loaded it has told it something else.
        wanted = [int(self._variables[name]) for _, name in self._asked.values()]
        if numbers != wanted:
            self.reset()
        self._numbers = [ask() for ask, _ in self._asked.values()]
        return numbers != self._numbers  # one that cannot have as many is as it should be

    def _modules_differ(self) -> bool:
        """The same of modules with pools of their own."""
        for module, name in _MODULES:
            loaded = sys.modules.get(module)
            if loaded is None or (module == "numba" and not _numba_has_threads()):
                continue
            ask = getattr(loaded, "get_num_threads", None)
            try:
                if ask is not None and ask() != int(self._variables[name]):
                    return True
            except Exception:  # noqa: BLE001  # it is not what we take it for
                continue
        return False

    def reset(self) -> None:
        """Tell all libraries the budget, whatever they have been told."""
        self._tell(self._variables)

    def _find_numbers(self) -> None:
        """Find out how to ask libraries that have come."""
        for path in platform.library_paths():
            name = os.path.basename(path).lower()
            if path in self._asked or not name.startswith("lib"):
                continue
            if any(part in name for part in _NAME_PARTS):
                ask = _asker(path)
                if ask is not None:
                    self._asked[path] = ask

    def _set(self, cpus: float) -> None:
        variables = self._variables = environment(cpus, os.environ)
        changed = {name for name, value in variables.items() if os.environ.get(name) != value}
        if not changed:
            return  # what is loaded was loaded under these very numbers
        os.environ.update(variables)
        self._tell(variables)

    def _tell(self, variables: Mapping[str, str]) -> None:
        import threadpoolctl

        there = len(sys.modules), platform.library_count()
        if self._there != there:
            # Looking takes ~3 ms with scikit-learn loaded, telling 0.1 ms.
            self._libraries = threadpoolctl.ThreadpoolController().lib_controllers
            self._there = there
        for library in self._libraries:
            name = _VARIABLE_OF.get(library.internal_api, _OPENMP)
            # Some can be told by one thread only, as long as that lives: by us, and then by others.
            release = getattr(library, "clear_controlling_thread", None)
            if release is not None:
                release(force=True)
            library.set_num_threads(int(variables[name]))
            if release is not None:
                release(force=True)
        _tell_python_libraries(variables)


_VARIABLE_OF: Final = {
    "openmp": _OPENMP,
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}


_NAME_PARTS: Final = ("blas", "mkl_rt", "blis", "gomp", "iomp", "libomp", "vcomp")
"""In the names of libraries that may have threads."""

_ASK: Final = {
    **{
        f"{prefix}openblas_get_num_threads{suffix}": "OPENBLAS_NUM_THREADS"
        for prefix in ("", "scipy_")
        for suffix in ("", "64_", "_64")
    },
    "MKL_Get_Max_Threads": "MKL_NUM_THREADS",
    "bli_thread_get_num_threads": "BLIS_NUM_THREADS",
    "omp_get_max_threads": _OPENMP,
}
"""Functions that tell how many threads a library uses, and the variable that says it."""


def _asker(path: str) -> tuple[Callable[[], int], str] | None:
    """What tells the number of threads of a library that is loaded, and the variable for it."""
    import ctypes

    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:  # it is not there any more
        return None
    for function, name in _ASK.items():
        ask = getattr(library, function, None)
        if ask is not None:
            return ask, name
    return None


def _numba_has_threads() -> bool:
    """Whether it has started them, which it would do if it were asked for their number."""
    return bool(getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False))


_MODULES: Final = (
    ("numexpr", "NUMEXPR_NUM_THREADS"),
    ("numba", "NUMBA_NUM_THREADS"),
    ("torch", _OPENMP),
)


def _tell_python_libraries(variables: Mapping[str, str]) -> None:
    """Libraries with pools of their own that can be told after they were imported.

    Polars and Rayon cannot: their pool keeps the size it got under the first budget.
    """
    for module, name in _MODULES:
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
