"""The number of cores and the memory limit, on machines made of a few files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars.resources import cpu_count, memory_limit_bytes, memory_limits

V2_MOUNT = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_without_any_limit_the_machine_counts(tmp_path: Path) -> None:
    count = cpu_count(root=tmp_path, environ={}, affinity=8, machine=8)
    assert (count.n, count.reason) == (8, "machine")
    assert count.considered == (("machine", 8.0), ("affinity", 8.0))


def test_affinity_of_taskset_counts(tmp_path: Path) -> None:
    count = cpu_count(root=tmp_path, environ={}, affinity=3, machine=8)
    assert (count.n, count.reason) == (3, "affinity")


def test_real_machine_has_at_least_one_core_and_says_why() -> None:
    count = cpu_count(environ={})
    assert count.n >= 1
    assert count.reason in dict(count.considered)


@pytest.mark.parametrize(
    ("quota", "n"), [("200000 100000", 2), ("150000 100000", 1), ("5000 100000", 1), ("25 5", 5)]
)
def test_quota_of_version_2_is_rounded_down_but_never_to_zero(
    tmp_path: Path, quota: str, n: int
) -> None:
    machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": f"{quota}\n",
        },
    )
    count = cpu_count(root=tmp_path, environ={}, affinity=64, machine=64)
    assert (count.n, count.reason) == (n, "cgroup v2 /")


def test_parents_of_the_own_group_bind_too(tmp_path: Path) -> None:
    # pod: 2 cores ─► container: no limit ─► our own group: no limit
    machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container/own\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/pod/memory.max": "1000000\n",
            "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/container/own/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/container/own/memory.max": "max\n",
        },
    )
    count = cpu_count(root=tmp_path, environ={}, affinity=192, machine=192)
    assert (count.n, count.reason) == (2, "cgroup v2 /pod")
    assert memory_limit_bytes(root=tmp_path, environ={}) == (1_000_000, "cgroup v2 /pod")


def test_docker_shows_version_1_from_the_own_group_on(tmp_path: Path) -> None:
    machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "proc/self/mountinfo": (
                "31 20 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup "
                "rw,cpu,cpuacct\n"
                "32 20 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
            ),
            "proc/meminfo": "MemTotal:       16000000 kB\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
        },
    )
    count = cpu_count(root=tmp_path, environ={}, affinity=16, machine=16)
    assert (count.n, count.reason) == (4, "cgroup v1 /")
    assert memory_limit_bytes(root=tmp_path, environ={}) == (2147483648, "cgroup v1 /")


def test_no_limit_of_version_1_is_no_limit(tmp_path: Path) -> None:
    machine(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu:/\n4:memory:/a\n",
            "proc/meminfo": "MemTotal:       1000 kB\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert cpu_count(root=tmp_path, environ={}, affinity=16, machine=16).n == 16
    assert memory_limits(root=tmp_path, environ={}) == (("machine", 1_024_000),)


def test_limits_are_found_where_mounts_are_hidden(tmp_path: Path) -> None:
    machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../elsewhere\n",
            "sys/fs/cgroup/cpu.max": "300000 100000\n",
        },
    )
    assert cpu_count(root=tmp_path, environ={}, affinity=16, machine=16).n == 3


@pytest.mark.parametrize(
    ("environ", "n", "reason"),
    [
        ({"SLURM_CPUS_PER_TASK": "4"}, 4, "SLURM_CPUS_PER_TASK"),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6, "SLURM_CPUS_ON_NODE"),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "6"}, 4, "SLURM_CPUS_PER_TASK"),
        ({"NCPUS": "5", "PBS_JOBID": "1.head"}, 5, "NCPUS"),
        ({"NCPUS": "5"}, 16, "machine"),
        ({"SLURM_CPUS_PER_TASK": "many"}, 16, "machine"),
        ({"SLURM_CPUS_PER_TASK": "0"}, 16, "machine"),
        ({"SLURM_CPUS_PER_TASK": "64"}, 16, "machine"),
        ({"MARS_CPUS": "auto"}, 16, "machine"),
        ({"MARS_CPUS": ""}, 16, "machine"),
        ({"MARS_CPUS": "32"}, 32, "MARS_CPUS"),
        ({"MARS_CPUS": " 3 ", "SLURM_CPUS_PER_TASK": "2"}, 3, "MARS_CPUS"),
    ],
)
def test_variables(tmp_path: Path, environ: dict[str, str], n: int, reason: str) -> None:
    count = cpu_count(root=tmp_path, environ=environ, affinity=16, machine=16)
    assert (count.n, count.reason) == (n, reason)


@pytest.mark.parametrize("wrong", ["0", "-1", "2.5", "all", "²"])
def test_wrong_override_is_an_error_that_names_it(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="MARS_CPUS"):
        cpu_count(root=tmp_path, environ={"MARS_CPUS": wrong}, affinity=1, machine=1)


def test_memory_of_a_slurm_job_counts_in_mebibytes(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/meminfo": "MemTotal: 16000000 kB\n"})
    limit = memory_limit_bytes(root=tmp_path, environ={"SLURM_MEM_PER_NODE": "4096"})
    assert limit == (4096 * 1024**2, "SLURM_MEM_PER_NODE")
    by_cores = {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}
    limit = memory_limit_bytes(root=tmp_path, environ=by_cores)
    assert limit == (3 * 1024**3, "SLURM_MEM_PER_CPU")


def test_memory_is_unknown_where_nothing_tells(tmp_path: Path) -> None:
    assert memory_limit_bytes(root=tmp_path, environ={}) == (0, "unknown")


@given(
    quotas=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 10**7), st.integers(1, 10**6)).map("{0[0]} {0[1]}".format),
            st.sampled_from(["max 100000", "", "max", "\n", "-1 0", "1 0", "0 0", "x y z"]),
        ),
        max_size=4,
    ),
    affinity=st.integers(1, 512),
    slurm=st.one_of(st.none(), st.text(st.characters(codec="ascii"), max_size=4)),
)
def test_any_tree_gives_a_whole_number_from_one_within_every_limit(
    quotas: list[str], affinity: int, slurm: str | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, files = "", {"proc/self/mountinfo": V2_MOUNT}
        for depth, quota in enumerate(quotas):
            path += f"/g{depth}"
            files[f"sys/fs/cgroup{path}/cpu.max"] = quota
        files["proc/self/cgroup"] = f"0::{path or '/'}\n"
        environ = {} if slurm is None else {"SLURM_CPUS_PER_TASK": slurm}
        root = machine(Path(folder), files)
        count = cpu_count(root=root, environ=environ, affinity=affinity, machine=512)
        assert count.n >= 1
        assert count.n == max(1, int(min(cores for _, cores in count.considered)))
        assert dict(count.considered)[count.reason] < count.n + 1


def test_import_is_cheap() -> None:
    # Every worker imports it: `os` is loaded in any interpreter that imports `site`, and no more.
    code = (
        "import os, sys, importlib.util as u; before = set(sys.modules)\n"
        "spec = u.spec_from_file_location('r', sys.argv[1]); m = u.module_from_spec(spec)\n"
        "sys.modules['r'] = m; spec.loader.exec_module(m)\n"
        "print(sorted(set(sys.modules) - before - {'r', '__future__'}))"
    )
    file = cpu_count.__code__.co_filename
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code, file], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"
