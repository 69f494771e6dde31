"""Which GPUs this process may use, which answer says so, and what they are doing.

Asks what the user has declared, then ``CUDA_VISIBLE_DEVICES``, then NVIDIA's driver, by NVML.
Nothing is loaded for that before a call asks for a GPU: most programs have none. Called by the
engines, by workers that have GPUs, and by ``mars doctor``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from mars.settings import GPU_LOOK_S

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"


class Gpus(NamedTuple):
    """The GPUs that there are.

    Attributes
    ----------
    names : tuple of str
        What ``CUDA_VISIBLE_DEVICES`` calls them: numbers, or ids such as ``GPU-5f2c…``.
    reason : str
        What said so; without GPUs why there are none.
    """

    names: tuple[str, ...]
    reason: str


def find(declared: int | None = None, environ: Mapping[str, str] = os.environ) -> Gpus:
    """Find the GPUs that calls may use.

    Parameters
    ----------
    declared : int, optional
        So many, whatever is found. None: as many as ``MARS_GPUS`` says, or as are found.
    environ : mapping, default `os.environ`
        Where ``MARS_GPUS`` and ``CUDA_VISIBLE_DEVICES`` are looked up.

    Raises
    ------
    ValueError
        ``MARS_GPUS`` is neither a whole number nor ``auto``; or more GPUs are declared than
        ``CUDA_VISIBLE_DEVICES`` names.
    """
    who = "n_gpu"
    wanted = environ.get("MARS_GPUS", "").strip()
    if declared is None and wanted and wanted.lower() != "auto":
        if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 10):
            raise ValueError(f"MARS_GPUS has to be a whole number, or auto, got {wanted!r}")
        who, declared = "MARS_GPUS", int(wanted)
    text = environ.get(VISIBLE)
    visible = None if text is None else _visible(text)
    if declared is not None:
        if visible is None:
            return Gpus(tuple(map(str, range(declared))), who)
        if declared > len(visible):
            raise ValueError(
                f"{who}={declared} GPUs, but {VISIBLE}={text!r} names {len(visible)}; declare as "
                f"many, or change that variable"
            )
        return Gpus(visible[:declared], who)
    if visible is not None:
        return Gpus(visible, f"{VISIBLE}={text}")
    return _by_nvml()


def _visible(text: str) -> tuple[str, ...]:
    """The devices that a variable names; CUDA sees none from the first one on that is none."""
    names: list[str] = []
    for name in [part.strip() for part in text.split(",")]:
        if not name or name.startswith("-") or name in names or name == "NoDevFiles":
            break
        names.append(name)
    return tuple(names)


def _by_nvml() -> Gpus:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return Gpus(
            (), f"{VISIBLE} is not set, and without nvidia-ml-py nobody can ask the driver: "
            "pip install 'mars-remote[gpu]', or declare them"
        )  # fmt: skip
    try:
        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return Gpus((), f"NVML finds none: {error}")
    return Gpus(tuple(map(str, range(count))), "NVML" if count else "NVML finds none")


def variables(names: Sequence[str]) -> dict[str, str]:
    """What a process has in its environment to see just these GPUs, once it loads a library."""
    made = {VISIBLE: ",".join(names)}
    if VISIBLE not in os.environ and ORDER not in os.environ:
        made[ORDER] = "PCI_BUS_ID"  # as the driver counts; CUDA would count the fastest one first
    return made


class Meter:
    """Looks what the call of this process does with its GPUs, now and then, while it runs.

    Parameters
    ----------
    names : sequence of str
        The GPUs that this process sees.
    running : callable
        Gives the attempt that runs; 0: none.

    Raises
    ------
    ImportError
        nvidia-ml-py is not installed.
    pynvml.NVMLError
        The driver does not tell.
    """

    def __init__(self, names: Sequence[str], running: Callable[[], int]) -> None:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self._nvml = pynvml
        self._running = running
        pynvml.nvmlInit()
        self._handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(name)
            for name in names
        ]
        self._lock = threading.Lock()
        self._attempt, self._peak, self._shares = 0, 0, list[float]()
        self._look()  # what the driver does not tell, it refuses here
        threading.Thread(target=self._watch, name="mars-gpu-meter", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(GPU_LOOK_S):
            attempt = self._running()
            if attempt:
                self._note(attempt)

    def _note(self, attempt: int) -> None:
        try:
            memory, share = self._look()
        except self._nvml.NVMLError:  # a device that fell off the bus: the call will tell
            return
        with self._lock:
            if attempt != self._attempt:
                self._attempt, self._peak, self._shares = attempt, 0, []
            self._peak = max(self._peak, memory)
            self._shares.append(share)

    def take(self, attempt: int) -> tuple[int, float]:
        """Bytes of GPU memory that an attempt had at most, and the part of its time in use, 0 to 1.

        Called once, when its function has ended.
        """
        self._note(attempt)
        with self._lock:
            if attempt != self._attempt:
                return 0, 0.0
            found = self._peak, sum(self._shares) / len(self._shares)
            self._attempt = 0
        return found

    def _look(self) -> tuple[int, float]:
        memory, share = 0, 0.0
        own = os.getpid()
        for handle in self._handles:
            users = {
                one.pid: one.usedGpuMemory
                for one in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            }
            # In a container the driver has other numbers of processes; some drivers tell no bytes.
            used = users.get(own)
            if used is None and own not in users and len(users) == 1:
                (used,) = users.values()
            memory += used or 0
            share += self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return memory, share / len(self._handles)


__all__ = ["Gpus", "Meter", "ORDER", "VISIBLE", "find", "variables"]
