"""Imports go down: a module imports only from lines of `LAYERS` above its own.

Every import counts, also one inside a function or under ``TYPE_CHECKING``: a hidden cycle is a
cycle. A new module goes where its imports allow, as far up as it can.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "mars"

LAYERS = """
    errors settings
    tracebacks config gpus resources platform storage _version
    calls.options
    calls.mistakes
    engines.kinds
    logs task delivery owners observe.watchers
    observe.echo observe.forecast observe.progress
    deploy.private_files deploy.this_host
    deploy.certificates deploy.records deploy.processes
    deploy.credentials
    deploy.knock deploy.programs
    deploy.answer deploy.dask_programs deploy.dask_scheduler deploy.ray_programs deploy.ray_start
    deploy.engine_programs
    deploy.census deploy.targets deploy.kubernetes.places
    deploy.kubernetes.alive deploy.kubernetes.beginning deploy.kubernetes.certify
    deploy.kubernetes.pods
    deploy.kubernetes.wanted
    deploy.kubernetes.engines
    deploy.kubernetes.api deploy.kubernetes.manifests
    deploy.kubernetes.tunnel
    deploy.clusters
    deploy.ssh deploy.slurm_queue
    code.bytecode code.digest code.keepers code.origin code.places code.arrays code.deep
    code.parameters
    code.modules
    code.changes
    code.guests code.importing code.class_pieces
    code.tags
    code.home
    code.spawned
    code.world
    code.definitions code.parts code.shared code.watched
    code.reach
    code.needs
    code.states code.main_names
    code.exceptions code.reductions code.stand_ins
    code.special
    code.rich
    code.pickling
    code.arriving code.functions
    attempt.diagnose attempt.threads attempt.rng attempt.memory attempt.setting
    attempt.process_end
    attempt.filters attempt.libraries attempt.loggers
    attempt.followed
    attempt.ambient
    attempt.context attempt.capture
    attempt.codec attempt.failure
    attempt.call attempt.rows
    graph observe.silence observe.states
    engines.wire.frames engines.wire.regions engines.wire.status
    engines.wire.messages observe.attempts
    observe.observation
    observe.events
    observe.event_log observe.spans
    engine
    checkpoint.stale
    checkpoint.folder checkpoint.identity checkpoint.loader checkpoint.module_code
    checkpoint.framing checkpoint.holder
    checkpoint.journal checkpoint.local_folder checkpoint.remote_folder checkpoint.walk
    checkpoint.declared checkpoint.digests checkpoint.reading
    checkpoint.index
    checkpoint.kept checkpoint.writer
    engines.outcome
    calls.held calls.maps checkpoint.opening
    calls.shown
    checkpoint.identifier checkpoint.records
    checkpoint.recall
    checkpoint.checkpoint
    engines.main_thread engines.objects engines.given
    engines.wire.large_pages engines.wire.ledger
    engines.wire.arena
    engines.worker.aftermath engines.worker.outbox engines.worker.stack_answer
    engines.worker.gate engines.worker.requests engines.worker.perform
    engines.worker.in_threads engines.worker.process
    engines.worker.thread_host
    engines.local.launch engines.local.stacks engines.local.zygote
    deploy.slurm_node
    deploy.slurm_asking deploy.slurm_steps
    deploy.slurm_keeper
    deploy.slurm_start
    engines.local.process
    engines.local.workers
    engines.driver.events engines.driver.queues
    engines.driver.estimates
    engines.driver.core
    engines.driver.consequences
    engines.driver.blocks engines.driver.early engines.driver.withdrawal
    engines.driver.placement
    engines.driver.on_devices
    engines.driver.reactor
    engines.driver.scheduler
    engines.driver.observing engines.driver.simulation.machine
    engines.driver.simulation.checks engines.driver.simulation.processes
    engines.driver.simulation.world
    engines.driver.certificate engines.driver.records engines.driver.store
    engines.driver.workers
    engines.driver.deaths engines.driver.dispatch engines.driver.live
    engines.driver.nested
    engines.driver.loop
    engines.driver.stream
    engines.driver.engine
    engines.inline engines.one_machine
    engines.cluster.carrier engines.cluster.clock engines.cluster.surroundings
    engines.cluster.folder engines.cluster.line engines.cluster.logs engines.cluster.pairs
    engines.cluster.peers engines.cluster.whereabouts
    engines.cluster.node engines.cluster.remote_node engines.cluster.shipping
    engines.cluster.mirrors
    engines.cluster.nodes
    engines.cluster.workers
    engines.cluster.engine engines.cluster.dask_parts engines.cluster.ray_parts
    engines.cluster.dask_own
    engines.dask engines.ray
    engines.start
    completion
    execution report.delays
    report.record
    report.losses report.frame report.timeline report.words
    report.path report.html
    report.advice report.what_if
    report.report
    sessions.logs sessions.echoing sessions.tally
    sessions.following
    sessions.runs sessions.views checkpoint.history
    sessions.outcomes sessions.opened
    sessions.session checkpoint.upkeep checkpoint.why
    web.desk web.guard web.index
    web.graph
    web.facts
    web.metrics web.clerk
    web.app
    web.server
    sessions.replacing
    sessions.opening
    sessions.urls
    deploy.kubernetes.client
    deploy.kubernetes.starting
    sessions.aio calls.executable
    calls.objects deploy.slurm
    calls.put calls.windowed script
    calls.completed
    calls.spawn
    executors.lost
    executors.futures executors.initializers
    executors.executor
    session
    calls.decorated joblib.work
    remote
    joblib.packing
    joblib.flight
    joblib.backend
    joblib
    learn.contrib.joblib
    core.context core.session
    dask.collection dask.small_frames dask.lock_table
    dask.annotations dask.fused_frames dask.fusion dask.program dask.shuffles pandas
    dask.at_home dask.kept dask.lifting dask.locks dask.threads
    dask.plan
    dask.running
    dask.backend
    dask contrib.dask
    tileables.logs tileables.module_names
    tileables.tileable
    tensor.names tensor.sorting
    tensor.calling
    tensor.creation
    tensor.own tensor.picking tensor.fft tensor.special tensor.stats
    tensor.ranking tensor.files tensor.tricks
    tensor.find tensor.lib
    tensor.protocols
    tensor.core
    tensor.linalg tensor.random tensor.spatial.distance
    tensor.spatial
    tensor
    dataframe.protocols
    dataframe.names dataframe.parts dataframe.numbering
    dataframe.rows dataframe.neighbours dataframe.grouping dataframe.whole
    dataframe.columns dataframe.handle
    dataframe.access
    dataframe.groups dataframe.joining
    dataframe.methods
    dataframe.core
    dataframe.reading
    dataframe
    learn.cores learn.fetchable
    learn.fitting
    learn.blockwise learn.facade
    learn.cluster learn.datasets learn.decomposition learn.ensemble learn.feature_extraction
    learn.glm learn.linear_model learn.metrics learn.model_selection learn.neighbors
    learn.preprocessing learn.semi_supervised learn.svm learn.utils learn.wrappers
    learn.utils.multiclass learn.utils.validation
    learn.contrib.collective
    learn.contrib.lightgbm_members learn.contrib.xgboost_members
    learn.contrib.lightgbm learn.contrib.pytorch learn.contrib.xgboost learn.metrics.pairwise
    learn
    core
    mars
    deploy.kubernetes
    cli.findings cli.kubernetes
    cli.nodes
    cli.cluster cli.doctor cli.run cli.stack cli.runs cli.saved
    cli.report cli.what_if cli.live
    cli.calls cli.dashboard cli.logs cli.top
    cli.replay
    cli
    cli.original
    __main__
"""
"""Modules of one line do not import each other. Packages without code stand nowhere."""

EMPTY = {
    "attempt", "calls", "checkpoint", "code", "contrib", "deploy", "engines", "engines.cluster",
    "engines.driver", "engines.driver.simulation", "engines.local", "engines.wire",
    "engines.worker", "executors", "learn.contrib", "observe", "report", "sessions",
    "tileables", "web",
}  # fmt: skip

TO_MEND: set[tuple[str, str]] = set()
"""Arrows that point upward, and should not. Empty, and to be kept so."""

PURE = {
    "calls.mistakes", "calls.options",
    "checkpoint.folder", "checkpoint.framing", "checkpoint.identity", "checkpoint.journal",
    "code.bytecode", "graph", "task", "observe.attempts", "observe.forecast",
    "observe.observation", "observe.states",
    "engines.cluster.clock", "engines.cluster.shipping", "engines.cluster.whereabouts",
    "engines.driver.blocks", "engines.driver.consequences", "engines.driver.core",
    "engines.driver.early", "engines.driver.estimates", "engines.driver.events",
    "engines.driver.on_devices", "engines.driver.placement", "engines.driver.queues",
    "engines.driver.reactor", "engines.driver.scheduler", "engines.driver.withdrawal",
    "engines.wire.regions", "engines.wire.status",
    "report.advice", "report.html", "report.losses", "report.path", "report.record",
    "report.timeline", "report.words", "web.guard",
}  # fmt: skip
"""They decide and do nothing else."""

EFFECTS = {
    "_thread", "asyncio", "datetime", "fcntl", "io", "logging", "mmap", "multiprocessing",
    "pathlib", "random", "select", "selectors", "shutil", "signal", "socket", "subprocess",
    "tempfile", "threading", "time",
}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts) or "mars"] = path
    return found


MODULES = modules()
HEIGHT = {
    name: height for height, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()
}


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Full names of what is imported anywhere in a module, and the lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"line {node.lineno}: imports are in full"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def ours(name: str) -> str | None:
    """The module of ours that an imported name is, or is in."""
    if name == "mars":
        return "mars"
    if not name.startswith("mars."):
        return None
    name = name.removeprefix("mars.")
    while name not in MODULES:
        if "." not in name:
            return "mars"  # a public name
        name = name.rpartition(".")[0]
    return name


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def violations() -> dict[tuple[str, str], str]:
    found = {}
    for name in MODULES:
        for what, line in imported(parse(name)):
            target = ours(what)
            if target is None or target in EMPTY or target == name:
                continue
            if HEIGHT.get(target, 0) >= HEIGHT.get(name, 0):
                found[name, target] = f"{MODULES[name].relative_to(ROOT)}:{line} imports {target}"
    return found


def test_every_module_has_a_layer() -> None:
    assert set(HEIGHT) | EMPTY == set(MODULES)
    assert not set(HEIGHT) & EMPTY


def test_packages_without_a_layer_hold_no_code() -> None:
    for name in EMPTY:
        assert all(isinstance(node, ast.Expr) for node in parse(name).body), name


def test_imports_go_down() -> None:
    wrong = [text for arrow, text in violations().items() if arrow not in TO_MEND]
    assert not wrong, "\n".join(wrong)


def test_what_was_mended_is_taken_off_the_list() -> None:
    assert set(violations()) >= TO_MEND, "take it out of TO_MEND"


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_hold_no_socket_thread_clock_or_file(name: str) -> None:
    for what, line in imported(parse(name)):
        assert what.partition(".")[0] not in EFFECTS, f"{name}:{line} imports {what}"


def test_the_scheduler_knows_tasks_and_tunables_only() -> None:
    parts = {name for name in PURE if name.startswith("engines.driver.")}
    for name in parts:
        known = {ours(what) for what, _ in imported(parse(name))}
        lower = {"calls.options", "observe.attempts", "settings", "task", "engines.wire.status"}
        assert known <= {None, *lower, *parts}, name


def test_the_scheduler_changes_the_stage_of_a_task_in_one_place() -> None:
    found = [
        (name, target.lineno)
        for name in PURE
        if name.startswith("engines.driver.")
        for node in ast.walk(parse(name))
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute)
        and target.attr == "stage"
        and isinstance(target.ctx, ast.Store)
    ]
    assert {name for name, _ in found} == {"engines.driver.core"}
    assert len(set(found)) == 1, "`move` checks each step"


ADAPTERS = {"joblib.backend"}
"""What a program imports because it uses another package, and what extends classes of that."""


def test_optional_packages_are_imported_late() -> None:
    # All of these are heavy, and `import mars` needs none of them.
    heavy = {
        "cryptography",
        "dask",
        "distributed",
        "fsspec",
        "joblib",
        "numpy",
        "pandas",
        "pyarrow",
        "ray",
        "rich",
        "sklearn",
    }
    late = {"dask.kept"}  # loaded only by those who have loaded Dask
    for name in MODULES.keys() - ADAPTERS - late:
        for node in parse(name).body:
            for what, line in imported(ast.Module([node], [])) if _runs(node) else ():
                assert what.partition(".")[0] not in heavy, f"{name}:{line} imports {what}"


def _runs(node: ast.stmt) -> bool:
    """Whether a statement of a module is more than a definition when the module is imported."""
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.Try, ast.With))


def test_imports_are_of_the_standard_library_ours_or_declared() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[ ]", one)[0] for one in project["dependencies"]}
    extras = {
        "IPython",
        "cryptography",
        "dask",
        "distributed",
        "fsspec",
        "joblib",
        "kubernetes",
        "numpy",
        "h5py",
        "pandas",
        "lightgbm",
        "prometheus_client",
        "pyarrow",
        "ray",
        "scipy",
        "sklearn",
        "opentelemetry",
        "urllib3",  # of kubernetes
        "yaml",  # of kubernetes
        "xgboost",
        "pynvml",
        "uvicorn",
    }  # used when they are there
    allowed = set(sys.stdlib_module_names) | declared | extras | {"mars"}
    for name in MODULES:
        for what, line in imported(parse(name)):
            assert what.partition(".")[0] in allowed, f"{name}:{line} imports {what}"
