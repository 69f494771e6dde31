"""Which GPUs are found, and by whose word; what NVML tells of calls, through its real client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mars import gpus
from mars.engines.kinds import EngineOptions, parse_options

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("declared", "environ", "names"),
    [
        (2, {}, ("0", "1")),
        (0, {"CUDA_VISIBLE_DEVICES": "0,1"}, ()),
        (None, {"MARS_GPUS": "3"}, ("0", "1", "2")),
        (1, {"MARS_GPUS": "3"}, ("0",)),
        (None, {"MARS_GPUS": "auto", "CUDA_VISIBLE_DEVICES": "4, 2"}, ("4", "2")),
        (None, {"CUDA_VISIBLE_DEVICES": "GPU-5f,MIG-7a"}, ("GPU-5f", "MIG-7a")),
        (None, {"CUDA_VISIBLE_DEVICES": "0,-1,1"}, ("0",)),
        (None, {"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        (None, {"CUDA_VISIBLE_DEVICES": ""}, ()),
        (None, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        (1, {"CUDA_VISIBLE_DEVICES": "6,7"}, ("6",)),
        (None, {"MARS_GPUS": "2", "CUDA_VISIBLE_DEVICES": "6,7,8"}, ("6", "7")),
    ],
)
def test_gpus_are_those_that_are_declared_or_visible(
    declared: int | None, environ: dict[str, str], names: tuple[str, ...]
) -> None:
    found = gpus.find(declared, environ)
    assert found.names == names
    assert found.reason


@pytest.mark.parametrize(
    ("declared", "environ", "says"),
    [
        (None, {"MARS_GPUS": "many"}, "MARS_GPUS has to be a whole number, or auto, got 'many'"),
        (None, {"MARS_GPUS": "-1"}, "MARS_GPUS"),
        (3, {"CUDA_VISIBLE_DEVICES": "0"}, "n_gpu=3 GPUs, but CUDA_VISIBLE_DEVICES='0' names 1"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(
    declared: int | None, environ: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        gpus.find(declared, environ)


def test_groups_of_workers_share_the_gpus_of_a_machine() -> None:
    options = parse_options(cores=(1, 1, 1), n_gpu=5)
    assert options.gpus_of_groups() == [("0", "1"), ("2", "3"), ("4",)]


@pytest.mark.parametrize(
    ("devices", "names"),
    [([1, 3], ("1", "3")), ("1,3", ("1", "3")), ("", ()), ([], ())],
)
def test_devices_of_the_original_name_the_gpus(devices: object, names: tuple[str, ...]) -> None:
    assert parse_options(cuda_devices=devices).gpus == names


def test_devices_of_the_original_may_be_left_to_us() -> None:
    assert parse_options(cuda_devices="auto").gpus is None


@pytest.mark.parametrize("n_gpu", [-1, True, 1.5, "two"])
def test_a_number_of_gpus_that_is_none_is_refused(n_gpu: object) -> None:
    with pytest.raises(ValueError, match="n_gpu has to be 'auto' or an int from 0 on"):
        parse_options(n_gpu=n_gpu)  # type: ignore[arg-type]


def test_variables_for_calls_decide_which_gpus_they_see() -> None:
    options = EngineOptions(env={"CUDA_VISIBLE_DEVICES": "8,9"})
    assert options.gpus_of_groups() == [("8", "9")]


PROGRAM = """
import os
import mars, mars.remote as mr
from mars import gpus

def use(size):
    with open(os.environ["MARS_TEST_GPU_BYTES"], "w") as file:  # as if it had allocated them
        file.write(str(size))
    return os.environ["CUDA_VISIBLE_DEVICES"]

if __name__ == "__main__":
    assert gpus.find() == (("0", "1"), "NVML"), gpus.find()
    with mars.new_session(n_cpu=2) as session:
        seen = mr.spawn(use, (1000,), gpus=2, name="both").execute().fetch()
        assert seen == "0,1", seen
        mr.spawn(use, (70,), gpus=1, name="one").execute()
        mr.spawn(os.getpid, name="none").execute()
        rows = {one.name: one for one in session.report().record.attempts}
    told = [(rows[name].gpu_memory_bytes, rows[name].gpu_utilisation)
            for name in ("both", "one", "none")]
    assert told == [(2000, 0.25), (70, 0.25), (None, None)], told
    print("as told")
"""


def test_memory_and_use_of_gpus_stand_in_the_table_of_attempts(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, to make the stand-in for NVIDIA's library")
    library = tmp_path / "libnvidia-ml.so.1"
    source = str(HERE / "nvml_stub.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), source], check=True)
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = {
        **os.environ, "LD_LIBRARY_PATH": str(tmp_path), "MARS_TEST_GPU_BYTES": f"{tmp_path}/bytes",
    }  # fmt: skip
    for name in ("CUDA_VISIBLE_DEVICES", "MARS_GPUS"):
        environ.pop(name, None)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.stdout == "as told\n", ended.stderr


def test_without_a_driver_nothing_is_found_and_the_reason_is_told() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from mars import gpus; print(*gpus.find(None, {}))"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout.startswith("() NVML finds none: ")
