"""``ray start`` of a cluster that mars starts: a program, ``python -m mars.deploy.ray_start``.

What Ray's processes say to others goes through gRPC, with TLS and a token. Beside it, some of its
Python programs speak HTTP: on each node the agent for runtime environments, which only the raylet
beside it talks to; with the extra ``ray[default]`` the agent of the dashboard and pages of metrics,
which are open to anybody. So all of these are started by way of `mars.deploy.this_host`.

Takes the place of names in Ray's own modules. A Ray that has them no more is refused.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from mars.deploy import this_host

_GUARD: Final = str(Path(this_host.__file__).resolve())
_AGENT: Final = "--runtime_env_agent_command="
_AGENTS: Final = (_AGENT, "--dashboard_agent_command=")

Start = Callable[..., object]


def kept(command: Sequence[str], programs: Path) -> list[str]:
    """Return a command that runs the same, kept to this host if it runs one of the programs.

    Parameters
    ----------
    command : sequence of str
        As Ray has it. Commands in its arguments, of agents, are looked at, too.
    programs : Path
        Where Ray's own programs are.
    """
    words = [_kept_agent(word, programs) for word in command]
    for place, word in enumerate(words):
        if word.endswith(".py") and Path(word).is_relative_to(programs):
            return [*words[:place], _GUARD, *words[place:]]
    return words


def _kept_agent(word: str, programs: Path) -> str:
    name, found, line = word.partition("=")
    if name + found not in _AGENTS:
        return word
    return name + found + subprocess.list2cmdline(kept(shlex.split(line), programs))


def keeping(start: Start, programs: Path, raylet: str, version: str) -> Start:
    """Return what starts a process of Ray as ``start`` does, kept to this host where it has to be.

    It refuses (SystemExit) a raylet that would start its agent in another way.
    """

    def start_kept(command: Sequence[str], *rest: object, **options: object) -> object:
        words = kept(command, programs)
        agents = [word for word in words if word.startswith(_AGENT)]
        if raylet in words and not (agents and all(_GUARD in word for word in agents)):
            raise SystemExit(unknown(version))
        return start(words, *rest, **options)

    return start_kept


def unknown(version: str) -> str:
    """What to say of a Ray that is made in another way."""
    return (
        f"mars does not know how Ray {version} starts its agents, so it cannot keep other hosts "
        f"from them, and starts none; use another version of Ray, or --engine dask"
    )


def main() -> None:
    """Change what has to be changed in Ray, and let it start what it is told to."""
    ray = import_module("ray")
    constants = import_module("ray._private.ray_constants")
    services = import_module("ray._private.services")
    try:
        vars(services)["start_ray_process"] = keeping(
            services.start_ray_process,
            Path(services.RAY_PATH),
            services.RAYLET_EXECUTABLE,
            ray.__version__,
        )
        on_loopback = not constants.ENABLE_RAY_CLUSTER
    except AttributeError:
        raise SystemExit(unknown(ray.__version__)) from None
    if on_loopback:
        # A Ray that was told of `ray_programs.LOOPBACK` lets no node join, and this process does
        # all the same; what it starts is told again.
        vars(constants)["ENABLE_RAY_CLUSTER"] = True
        vars(services)["resolve_ip_for_localhost"] = str
    import_module("ray.scripts.scripts").main()


if __name__ == "__main__":
    main()
