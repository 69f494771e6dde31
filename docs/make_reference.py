"""Write docs/reference.md from the docstrings, options, tunables and commands of mars.

``python docs/make_reference.py`` writes the page. With ``--check`` it only says whether the page is
up to date, as a test does. The site takes the page as it is: docstrings are the only source of the
reference, for readers of the repository and of the site. This file describes only what the code
cannot describe by itself.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "src") not in sys.path:
    sys.path.insert(0, str(ROOT / "src"))

import mars  # noqa: E402  # this checkout's, not one that happens to be installed
import mars.calls.options  # noqa: E402
import mars.cli  # noqa: E402
import mars.config  # noqa: E402
import mars.contrib.dask  # noqa: E402
import mars.dask  # noqa: E402
import mars.deploy.kubernetes  # noqa: E402
import mars.deploy.slurm  # noqa: E402
import mars.errors  # noqa: E402
import mars.execution  # noqa: E402
import mars.joblib  # noqa: E402
import mars.learn  # noqa: E402
import mars.logs  # noqa: E402
import mars.pandas  # noqa: E402
import mars.remote  # noqa: E402
import mars.session  # noqa: E402
import mars.settings  # noqa: E402
from mars.attempt.context import Context  # noqa: E402
from mars.engines.objects import RemoteObject  # noqa: E402
from mars.observe.events import Event  # noqa: E402
from mars.report.report import FunctionRow, Report, WorkerLine  # noqa: E402
from mars.report.what_if import Point, WhatIf  # noqa: E402
from mars.sessions.outcomes import Outcomes  # noqa: E402
from mars.sessions.views import Views  # noqa: E402

PAGE = ROOT / "docs" / "reference.md"

CALL_OPTIONS = {
    "name": ("str", "the function's name", "what progress, errors and logs call it"),
    "cpus": (
        "float", "1",
        "cores that the call owns, and threads that its libraries use; above 1 a whole number",
    ),
    "threads": (
        "int", "0",
        "for calls that wait: so many run at a time as threads of one process, and take no cores",
    ),
    "memory": ("int or str", "none", "what the call may take, in bytes or as `'2GiB'`"),
    "gpus": ("float", "0", "GPUs that the call owns and sees: 1, 2, …, or a part of one, as 0.5"),
    "timeout": (
        "float", "none",
        "seconds for one attempt, from when it is sent to a free worker; then `TaskTimeout`",
    ),
    "retries": ("int", "0", "further attempts after an exception or a timeout"),
    "retry_on": ("exception class or tuple", "`Exception`", "exceptions after which to try again"),
    "death_retries": ("int", "3", "further attempts after the worker died"),
    "idempotent": (
        "bool", "`True`",
        "`False`: no second start after a death of its worker; not together with `retries`",
    ),
    "cache": (
        "bool", "`True`",
        "`False`: a checkpoint keeps neither the call nor calls that need it; they run each time",
    ),
    "depends": (
        "any", "none",
        "what else the result depends on, for checkpoints; a path means the content of its file",
    ),
    "priority": ("int", "0", "ready calls of higher priority start first"),
    "expect_worker": ("str", "any", "address of the worker group in which the call runs"),
    "expect_band": ("tuple", "any", "`(address, band)`; the address is as for `expect_worker`"),
    "gpu": ("bool", "none", "`True` means `gpus=1`"),
    "fuseable": ("any", "none", "a hint of the original, without effect"),
    "memory_scale": ("any", "none", "a hint of the original, without effect"),
    "output_types": (
        "str or list", "none",
        'what the result is: `"tensor"`, `"dataframe"`, `"series"`; `"object"` is any other value',
    ),
    "reassign_worker": ("any", "none", "a hint of the original, without effect"),
}  # fmt: skip

PROGRAM_OPTIONS = {
    "show_progress": 'whether `execute` shows its progress; `"auto"`: on a terminal, in a '
    "notebook and in CI",
    "eager_mode": "whether `spawn` executes at once",
    "seed": "seed of `mars.remote.rng`; `None`: the seed of the session",
    "echo": 'what `execute` shows of what calls print: `"all"`, `"failures"`, `"summary"` or '
    "`False`",
    "on_event": "a function that is told what happens, see "
    "[Be told what happens](howto/events.md); `None`: nobody is told",
    "open_telemetry": "whether runs and attempts become spans of OpenTelemetry",
    "silent_notice": "seconds without output of a call after which a line on stderr names it; "
    "`None`: never",
}

VARIABLES = {
    "MARS_CPUS": 'number of cores that `n_cpu="auto"` means; overrides every limit that was found',
    "MARS_GPUS": "number of GPUs of this machine, or of a node; overrides what is found",
    "CUDA_VISIBLE_DEVICES": "GPUs that calls with `gpus=` share, if `MARS_GPUS` says nothing",
    "MARS_CHECKPOINT": "checkpoint of each session that is made without `checkpoint=`",
    "MARS_ADDRESS": "address of each session that is made without an address and without an "
    "engine; `mars run` sets it for its program",
    "SLURM_CPUS_PER_TASK, SLURM_CPUS_ON_NODE, NCPUS": "cores that a batch system gives, which "
    "mars keeps to",
    "SLURM_MEM_PER_NODE, SLURM_MEM_PER_CPU": "memory that a batch system gives, likewise",
    "OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, …": "threads of native libraries; if you set a "
    "number, libraries in a call never use more",
    "CI": "if it is set, progress is shown as plain lines",
    "TERM, NO_COLOR": "how the progress bar is drawn",
    "MARS_K8S_IMAGE": "the image of clusters on Kubernetes, where none is passed",
    "XDG_STATE_HOME": "the folder in which `mars/clusters` has the files of known clusters; "
    "default: `~/.local/state`",
    "MARS_BIND_HOST, MARS_CONTAINER_IP, MARS_BIND_PORT": "used by `mars-supervisor` and "
    "`mars-worker` without `-H` and `-p`",
    "TMPDIR": "the folder of the nameless files that hold logs",
}

FOR_MARS_ONLY = frozenset({
    "ExecutableTuple.describe_beside", "Object.describe_beside",
    "Session.value", "Session.error", "Session.executed", "Session.task_of",
    "Session.follow_log", "Session.follow_logs",
    *(f"CallFuture.{name}" for name in (
        "claim", "begin", "unclaim", "settle", "fail", "cancel_anyway", "call", "task", "read",
        "has_large_result",
    )),
    "Session.close_checkpoints", "Session.state", "Session.withdraw", "Execution.begin",
    "Completed.limit", "Engine.count", "MapObjects.whole", "MapObjects.own_items",
    "MapObjects.loose",
    *(
        f"{kind}.{name}"
        for kind in ("Executable", "Object", "ExecutableTuple", "MapObjects")
        for name in (
            "calls_in", "calls_logged", "value_in", "error_in", "infos_in", "state_in", "leaves",
            "rows_shown",
        )
    ),
})  # fmt: skip
"""Public names that other modules of mars call, and programs need not."""

_SECTIONS = {
    "Parameters": "Parameters", "Attributes": "Attributes", "Returns": "Returns",
    "Yields": "Yields", "Raises": "Raises", "Notes": "Notes", "Examples": "Example",
}  # fmt: skip


# -- docstrings to Markdown -----------------------------------------------------------------------


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Parts of a numpydoc docstring; the first one has no name."""
    name = ""
    part: list[str] = []
    lines = text.splitlines()
    skip = False
    for number, line in enumerate(lines):
        if skip:
            skip = False
            continue
        under = lines[number + 1] if number + 1 < len(lines) else ""
        if line in _SECTIONS and under == "-" * len(line):
            yield name, part
            name, part, skip = line, [], True
        else:
            part.append(line)
    yield name, part


def prose(lines: Iterable[str]) -> str:
    """Running text; reStructuredText's literals and drawings as Markdown has them."""
    out: list[str] = []
    drawing = False
    for line in textwrap.dedent("\n".join(lines)).strip("\n").splitlines():
        if not drawing and line.endswith("::"):
            drawing = True
            line = line[:-1] if line.strip() != "::" else ""
            out += [line, "", "```text"] if line else ["```text"]
        elif drawing and line and not line.startswith(" "):
            drawing = False
            while out and not out[-1]:
                out.pop()
            out += ["```", "", inline(line)]
        elif drawing:
            if line or out[-1] != "```text":
                out.append(line[4:])
        else:
            out.append(inline(line))
    if drawing:
        out.append("```")
    return "\n".join(out).strip("\n")


def inline(line: str) -> str:
    """One line; outside of literals, ``<`` must not begin a tag. Names of pages become links."""
    line = re.sub(r"\bdocs/([\w-]+\.md)\b", r"[\1](\1)", line)
    return re.sub(r"``(.+?)``", r"`\1`", line) if "`" in line else line.replace("<", "&lt;")


def fields(lines: list[str]) -> Iterator[str]:
    """Entries of a section such as Parameters, as a list."""
    entry: tuple[str, list[str]] | None = None
    for line in [*lines, ""]:
        if line and not line.startswith(" "):
            if entry is not None:
                yield _field(*entry)
            entry = (line, [])
        elif entry is not None:
            entry[1].append(line)
    if entry is not None:
        yield _field(*entry)


def _field(head: str, body: list[str]) -> str:
    name, colon, kind = head.partition(" : ")
    name = name.replace("*", "\\*")
    text = prose(body).replace("\n", " ").strip()
    shown = f"- **{name}**" + (f" ({inline(kind)})" if colon else "")
    return f"{shown}: {text}" if text else shown


def document(text: str) -> Iterator[str]:
    """A docstring as Markdown, part by part."""
    for name, lines in sections(inspect.cleandoc(text)):
        if not name:
            yield prose(lines)
        elif name == "Examples":
            yield "```pycon\n" + "\n".join(lines).strip("\n") + "\n```"
        elif name == "Notes":
            yield prose(lines)
        else:
            entries = list(fields([line for line in lines if line.strip()]))
            yield f"*{_SECTIONS[name]}*\n\n" + "\n".join(entries)


# -- things to document ---------------------------------------------------------------------------


def signature(name: str, value: Callable[..., Any], method: bool) -> str:
    """The name with its parameters and their defaults, without types."""
    shown = inspect.signature(value)
    parameters = list(shown.parameters.values())
    if method and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    shown = shown.replace(parameters=plain, return_annotation=shown.empty)
    return f"{name}{shown}"


def function(name: str, value: Callable[..., Any], level: int = 3, method: bool = False) -> str:
    """A function or method: heading, then its docstring."""
    parts = [f"{'#' * level} `{signature(name, value, method)}`"]
    parts.extend(document(inspect.getdoc(value) or ""))
    return "\n\n".join(part for part in parts if part)


def klass(name: str, value: type, level: int = 3, constructor: bool = False) -> str:
    """A class and its own public members that have a docstring."""
    title = signature(name, value, False) if constructor else name
    parts = [f"{'#' * level} `{title}`", *document(value.__doc__ or "")]
    short = name.rpartition(".")[2]
    parts_of = [value, *[base for base in value.__bases__ if base in (Outcomes, Views)]]
    members = {name: one for part in parts_of for name, one in vars(part).items()}
    for member, attribute in members.items():
        if member.startswith("_") or f"{value.__name__}.{member}" in FOR_MARS_ONLY:
            continue
        if inspect.isfunction(attribute) and inspect.getdoc(attribute):
            if attribute.__name__ != member:
                parts.append(
                    f"{'#' * (level + 1)} `{short}.{member}()`\n\n"
                    f"The same as `{attribute.__name__}`."
                )
                continue
            parts.append(function(f"{short}.{member}", attribute, level + 1, method=True))
        elif isinstance(attribute, property) and inspect.getdoc(attribute):
            kind = "" if attribute.fget is None else attribute.fget.__name__
            parts.append(f"{'#' * (level + 1)} `{short}.{member}`")
            if kind != member:
                parts.append(f"The same as `{kind}`.")
            else:
                parts.extend(document(inspect.getdoc(attribute) or ""))
    return "\n\n".join(part for part in parts if part)


def errors() -> Iterator[str]:
    """The tree of errors, then each of them."""
    tree = (mars.errors.__doc__ or "").splitlines()
    yield prose(tree)
    for name in mars.errors.__all__:
        value = getattr(mars.errors, name)
        bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
        parts = [f"### `mars.errors.{name}`", f"A {bases}.", *document(value.__doc__ or "")]
        yield "\n\n".join(part for part in parts if part)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def call_options() -> str:
    """Options of a call, all of them."""
    known = {*mars.calls.options.CHECKS, *mars.calls.options.HINTS}
    if known != CALL_OPTIONS.keys():
        raise SystemExit(f"describe in {__file__}: {sorted(known ^ CALL_OPTIONS.keys())}")
    rows = [(f"`{name}`", *facts) for name, facts in CALL_OPTIONS.items()]
    return table(("option", "type", "default", "meaning"), rows)


def program_options() -> str:
    """Options of a program, all of them."""
    own = mars.config._DEFAULTS
    if own.keys() != PROGRAM_OPTIONS.keys():
        raise SystemExit(f"describe in {__file__}: {sorted(own.keys() ^ PROGRAM_OPTIONS.keys())}")
    rows = [(f"`{name}`", f"`{default!r}`", PROGRAM_OPTIONS[name]) for name, default in own.items()]
    inert = ", ".join(f"`{name}`" for name in mars.config.INERT)
    inert_sections = ", ".join(f"`{name}`" for name in mars.config.INERT_SECTIONS)
    return "\n\n".join(
        [
            table(("option", "default", "meaning"), rows),
            prose(["These options of the original can be set and read, and have no effect:"])
            + f" {inert}; and every name in the sections {inert_sections}.",
        ]
    )


def tunables() -> str:
    """Constants of `mars.settings` with the string that follows each of them."""
    tree = ast.parse(inspect.getsource(mars.settings))
    rows = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if not isinstance(after, ast.Expr) or not isinstance(after.value, ast.Constant):
            continue
        text = inspect.cleandoc(str(after.value.value)).replace("\n", " ")
        source = ast.unparse(node.value) if node.value is not None else ""
        rows.append((f"`{node.target.id}`", f"`{source}`", inline(text)))
    return table(("name", "value", "what, in which unit, and why"), rows)


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The arguments of a command, then its own commands with theirs."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    rows = [
        (f"`{', '.join(action.option_strings) or action.dest}`", action.help or "")
        for action in parser._actions
        if action not in inner and not isinstance(action, argparse._HelpAction)
    ]
    if rows:
        yield table(("option", "meaning"), rows)
    for action in inner:
        purposes = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, command in action.choices.items():
            purpose = purposes[name]
            yield f"`{command.prog}`: {purpose}."
            yield from arguments(command)


def commands() -> Iterator[str]:
    """Commands and their arguments."""
    yield "`mars` and `python -m mars` are the same. `mars --version` prints the version."
    for name, purpose in mars.cli.COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"mars {name}", add_help=False)
        module = name.replace("-", "_")
        importlib.import_module(f"mars.cli.{module}").add_arguments(parser)
        yield f"### `mars {name}`\n\n{purpose[:1].upper()}{purpose[1:]}."
        yield from arguments(parser)
    yield "Exit status: 0 if all is well, 1 if a problem was found, 2 if the command is wrong."


def build() -> str:
    """The whole page."""
    remote, session = mars.remote, mars.session
    parts = [
        "# Reference",
        ("`docs/make_reference.py` makes this page from the docstrings. Do not edit it. The "
         "[guide](guide.md) shows how to use these things together."),
        ("[mars.remote](#marsremote) · [Options of a call](#options-of-a-call) · [mars](#mars) · "
         "[mars.session](#marssession) · [mars.joblib](#marsjoblib) · [mars.dask](#marsdask) · "
         "[mars.pandas](#marspandas) · [mars.tensor](#marstensor) · "
         "[mars.dataframe](#marsdataframe) · "
         "[mars.deploy.kubernetes](#marsdeploykubernetes) · "
         "[mars.deploy.slurm](#marsdeployslurm) · [Inside a call](#inside-a-call) · "
         "[Options of a program](#options-of-a-program) · [Errors](#errors) · "
         "[Command line](#command-line) · [Environment](#environment) · [Tunables](#tunables)"),
        "## mars.remote",
        "`import mars.remote as mr`",
        function("mars.remote.spawn", remote.spawn),
        function("mars.remote.map", remote.map),
        function("mars.remote.put", remote.put),
        function("mars.remote.run", remote.run),
        function("mars.remote.as_completed", remote.as_completed),
        function("mars.remote.rng", remote.rng),
        function("mars.remote.open", remote.open),
        function("mars.remote.run_script", remote.run_script),
        ("### `@mars.remote`\n\n`@mars.remote` and `@mars.remote(cpus=2)` make a `RemoteFunction` "
         "of a function. Options are those [of a call](#options-of-a-call)."),
        klass("mars.remote.RemoteFunction", remote.RemoteFunction),
        "`execute`, `fetch` and `new_session` are those of [mars](#mars).",
        klass("mars.remote.Executable", remote.Executable),
        "Objects, tuples of objects and maps have all of these methods as well.",
        klass("mars.remote.Object", remote.Object),
        klass("mars.remote.ExecutableTuple", remote.ExecutableTuple),
        klass("mars.remote.MapObjects", remote.MapObjects),
        klass("mars.remote.Execution", remote.Execution),
        ("An `Execution` also has `running`, `cancelled` and `add_done_callback` of "
         "`concurrent.futures.Future`. It can be awaited."),
        klass("mars.remote.Counts", remote.Counts),
        klass("mars.remote.Completed", remote.Completed),
        klass("mars.logs.LogFetcher", mars.logs.LogFetcher),
        "## Options of a call",
        ("These are keyword arguments of `spawn` and `map`. A name that is not in the table is "
         "refused: `ValueError: Unexpected kw: <name>`, with the name that was most likely meant."),
        call_options(),
        "## mars",
        "Also here: `spawn`, `map`, `run` and `remote` of [mars.remote](#marsremote).",
        function("mars.new_session", session.new_session),
        function("mars.execute", session.execute),
        function("mars.fetch", session.fetch),
        "### `mars.put`\n\nThe same as `mars.remote.put`.",
        function("mars.fetch_log", session.fetch_log),
        function("mars.stop_server", session.stop_server),
        function("mars.get_context", session.get_context),
        klass("mars.Session", session.Session),
        klass("mars.Executor", mars.Executor, constructor=True),
        klass("mars.CallFuture", mars.CallFuture),
        ("A `CallFuture` also has `running`, `done`, `cancelled` and `add_done_callback` of "
         "`concurrent.futures.Future`. It can be awaited."),
        ("### `mars.options`\n\nThe program's options, by attribute; see "
         "[Options of a program](#options-of-a-program)."),
        "### `mars.errors`\n\nSee [Errors](#errors).",
        ("### `mars.config`\n\n`options` and `option_context`; see "
         "[Options of a program](#options-of-a-program)."),
        "### `mars.__version__`\n\nThe version, a text.",
        "## mars.session",
        ("Also here, as in `mars`: `new_session`, `execute`, `fetch`, `fetch_log`, `stop_server`, "
         "`get_context` and `Session`."),
        function("mars.session.get_default_session", session.get_default_session),
        function("mars.session.get_default_or_create", session.get_default_or_create),
        function("mars.session.clear_default_session", session.clear_default_session),
        function("mars.session.get_default_async_session", session.get_default_async_session),
        function("mars.session.default_session", session.default_session),
        klass("mars.session.AsyncSession", session.AsyncSession),
        function("mars.session.fetch_infos", session.fetch_infos),
        ("`SyncSession` is `Session`, and `ExecutionInfo` is `mars.remote.Execution`. Some of "
         "these names are also in `mars.core`, `mars.core.context` and `mars.core.session`, "
         "where programs of the original import them from."),
        "## mars.dask",
        ("Collections of Dask on mars; [Dask and pandas on mars](howto/dask.md) shows how. "
         "Importing the module makes the name \"mars\" known to Dask. `mars.dask.scheduler` is "
         "what the name means; `mars.dask.get` and `mars.dask.persist` are its methods."),
        function("mars.dask.enable", mars.dask.enable),
        function("mars.dask.disable", mars.dask.disable),
        klass("mars.dask.Scheduler", mars.dask.Scheduler, constructor=True),
        "## mars.pandas",
        ("`engine=mars.pandas` runs functions of pandas 3 on mars; "
         "[Dask and pandas on mars](howto/dask.md) shows how."),
        klass("mars.pandas.Engine", mars.pandas.Engine, constructor=True),
        function("mars.pandas.apply_groups", mars.pandas.apply_groups),
        "## mars.deploy.kubernetes",
        "See [Kubernetes](kubernetes.md).",
        function("mars.deploy.kubernetes.new_cluster", mars.deploy.kubernetes.new_cluster),
        function("mars.deploy.kubernetes.connect_cluster", mars.deploy.kubernetes.connect_cluster),
        klass("mars.deploy.kubernetes.KubernetesClusterClient",
              mars.deploy.kubernetes.KubernetesClusterClient),
        "## mars.contrib.dask",
        "Names of the original. `mars_scheduler` is a `mars.dask.Scheduler`.",
        function("mars.contrib.dask.convert_dask_collection",
                 mars.contrib.dask.convert_dask_collection),
        "## mars.tensor",
        *tables_of_tensor(),
        "## mars.dataframe",
        *tables_of_dataframe(),
        "## mars.learn",
        ("Modules with the names of scikit-learn's: "
         + ", ".join(f"`{name}`" for name in mars.learn.MODULES)
         + ". [The page](howto/tensors.md#scikit-learn) says how each kind of name runs."),
        "## mars.joblib",
        "It needs joblib. [joblib and scikit-learn](howto/joblib.md) shows how it is used.",
        klass("mars.joblib.MarsBackend", mars.joblib.MarsBackend, constructor=True),
        klass("mars.joblib.Batch", mars.joblib.Batch),
        function("mars.joblib.register", mars.joblib.register),
        ("`mars.learn.contrib.joblib` has the names that the original has for `register` and "
         "`MarsBackend`: `register_mars_backend` and `MarsDistributedBackend`."),
        "## Reports",
        klass("Report", Report),
        klass("FunctionRow", FunctionRow),
        klass("WorkerLine", WorkerLine),
        klass("Event", Event),
        klass("WhatIf", WhatIf),
        klass("Point", Point),
        "## Inside a call",
        klass("Context", Context),
        "### `RemoteObject`\n\n" + prose((RemoteObject.__doc__ or "").splitlines()),
        "## mars.deploy.slurm",
        "See [Slurm](slurm.md).",
        function("mars.deploy.slurm.new_cluster", mars.deploy.slurm.new_cluster),
        klass("mars.deploy.slurm.SlurmCluster", mars.deploy.slurm.SlurmCluster),
        "## Options of a program",
        klass("mars.config.Options", mars.config.Options),
        program_options(),
        klass("mars.config.option_context", mars.config.option_context, constructor=True),
        "## Errors",
        *errors(),
        "## Command line",
        *commands(),
        "## Environment",
        table(
            ("variable", "meaning"),
            [(f"`{name}`", meaning) for name, meaning in VARIABLES.items()],
        ),
        "## Tunables",
        prose((mars.settings.__doc__ or "").splitlines()),
        "All of them stand in `src/mars/settings.py`.",
        tunables(),
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def listed(names: Iterable[str]) -> str:
    """Names in one line."""
    return ", ".join(f"`{name}`" for name in sorted(names))


def tables_of_tensor() -> list[str]:
    """The names of mars.tensor, as its tables have them."""
    from mars.tensor import fft, linalg, names, random

    other = [f"`{one}` is `{two}`" for one, two in sorted(names.RENAMED.items())]
    return [
        "[numpy, pandas and scikit-learn in parallel](howto/tensors.md) shows how they are used.",
        f"Functions of numpy, in chunks: {listed(names.DASK | names.OWN)}.",
        f"Other names: {', '.join(other)}.",
        f"In one call that gets the whole arrays: {listed(names.WHOLE)}.",
        f"Constants and types of numpy: {listed(names.VALUES | names.RENAMED_VALUES.keys())}.",
        f"Methods of tensors, beside operators: {listed(names.METHODS)}.",
        f"`mars.tensor.random`: {listed(dir(random))}.",
        f"`mars.tensor.linalg`: {listed({*dir(linalg)})}.",
        f"`mars.tensor.fft`: {listed(dir(fft))}.",
        "`mars.tensor.special` and `mars.tensor.stats` have the functions of scipy.",
        f"Not there, and what to use: {missing(names.MISSING)}.",
    ]


def missing(names: dict[str, str]) -> str:
    """Names that are not there, each with what to use."""
    return "; ".join(f"`{name}`: {hint}" for name, hint in sorted(names.items()))


def tables_of_dataframe() -> list[str]:
    """The names of mars.dataframe, as its tables have them."""
    from mars.dataframe import names

    return [
        "[numpy, pandas and scikit-learn in parallel](howto/tensors.md) shows how they are used.",
        f"Names: {listed(names.TOP)}.",
        f"Methods in chunks, by Dask: {listed(names.PARALLEL)}.",
        f"Methods in chunks, by pandas: {listed(names.BY_ROW)}.",
        f"Reductions of groups in chunks: {listed(names.GROUPED)}.",
        "All other methods of pandas run in one call that gets the whole frame.",
        f"Not there, and what to use: {missing({**names.MISSING, **names.TOP_MISSING})}.",
    ]


def main() -> int:
    """Write or check the page; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when out of date")
    check: bool = parser.parse_args().check
    page = build()
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
    if not check:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if not same:
        print(f"{PAGE} is out of date; run: python docs/make_reference.py")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
