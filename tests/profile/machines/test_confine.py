from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.gpu import GpuFacts
from liftgate.profile.launch import WorkerHandle
from liftgate.profile.machines.cgroups import Legacy, Limits, Unified, find_hierarchy
from liftgate.profile.machines.confine import Confinement, confined, limit_memory
from liftgate.profile.machines.instance import Placement, find_instance

EMULATED = Placement(instance=find_instance("m5.large"), cpus=(0,), threads=1, label="emulated", standing="s", memory="memory is checked")
V2_MOUNT = "30 24 0:26 {inside} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n"
V1_MOUNTS = (
    "31 24 0:27 {inside} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 24 0:28 / /sys/fs/cgroup/cpuset rw - cgroup c rw,cpuset\n"
)
LIMIT = str(8 * 2**30)


class Kernel:
    """The files of control groups below a folder: making one fills it, removing one that holds a process fails."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.top = root / "sys/fs/cgroup"
        self.top.mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        self.made: list[str] = []
        self.written: dict[str, dict[str, str]] = {}
        self.refuse_joins = False
        make, write = Path.mkdir, Path.write_text

        def mkdir(path: Path, *args: object) -> None:
            make(path)
            if path.is_relative_to(self.top):
                self.made.append(path.name)
                for file in ("memory.swap.max", "memory.memsw.limit_in_bytes", "cpuset.cpus"):
                    write(path / file, "")

        def write_text(path: Path, text: str, **options: str) -> int:
            if path.name == "cgroup.procs" and self.refuse_joins:
                raise PermissionError(errno.EACCES, "Permission denied")
            if path.is_relative_to(self.top):
                self.written.setdefault(path.parent.name, {})[path.name] = text.strip()
            return write(path, text, **options)

        def rmdir(path: Path) -> None:
            if not path.exists():
                raise FileNotFoundError(path)
            shutil.rmtree(path)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "write_text", write_text)
        monkeypatch.setattr(Path, "rmdir", rmdir)

    def describe(self, mounts: str, groups: str) -> None:
        (self.root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/vda rw\n" + mounts)
        (self.root / "proc/self/cgroup").write_text(groups)

    def group(self, path: str, **files: str) -> Path:
        folder = self.top / path
        for parent in reversed([folder, *folder.parents]):
            if not parent.exists():
                parent.mkdir()
        for name, text in files.items():
            (folder / name.replace("_", ".", 1)).write_text(text)
        self.made.clear()
        return folder

    def left(self) -> list[str]:
        return [path.name for path in self.top.rglob("liftgate-*")]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setenv("LIFTGATE_CGROUP", "auto")
    return Kernel(tmp_path, monkeypatch)


@pytest.fixture
def v2(kernel: Kernel) -> Kernel:
    kernel.describe(V2_MOUNT.format(inside="/"), "0::/app.slice/shell.scope\n")
    kernel.group("app.slice", cgroup_subtree_control="cpu memory pids\n")
    kernel.group("app.slice/shell.scope", cgroup_controllers="cpu memory pids\n", cgroup_subtree_control="\n", memory_max="max\n")
    return kernel


@pytest.fixture
def v1(kernel: Kernel) -> Kernel:
    kernel.describe(V1_MOUNTS.format(inside="/"), "4:memory:/jobs\n3:cpuset:/\n0::/\n")
    kernel.group("memory/jobs")
    kernel.group("cpuset", cpuset_mems="0\n")
    return kernel


def test_in_v2_groups_are_made_where_the_memory_controller_is_passed_on(v2: Kernel) -> None:
    assert find_hierarchy(v2.root) == Unified(v2.top / "app.slice")


def test_in_v1_groups_are_made_in_ones_own(v1: Kernel) -> None:
    assert find_hierarchy(v1.root) == Legacy(v1.top / "memory/jobs", v1.top / "cpuset")


def test_a_container_sees_its_own_part_of_the_hierarchy_as_the_whole(kernel: Kernel) -> None:
    kernel.describe(V1_MOUNTS.format(inside="/docker/c1"), "4:memory:/docker/c1/job\n")
    assert find_hierarchy(kernel.root) == Legacy(kernel.top / "memory/job", None)


@pytest.mark.parametrize(
    ("file", "value"), [("memory_max", "17179869184"), ("memory_high", "1"), ("cpu_max", "50000 100000"), ("cpuset_cpus", "0-1")]
)
def test_limits_that_this_process_is_under_are_not_escaped(v2: Kernel, file: str, value: str) -> None:
    v2.group("app.slice/shell.scope", **{file: value + "\n"})
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        why = f"a group of its own would escape {file.replace('_', '.')} = {value.split(maxsplit=1)[0]} of shell.scope"
        assert confinement.placement.memory == f"memory is checked, not limited: {why}"
    assert v2.made == []


def test_less_memory_than_the_instance_has_is_said_and_not_called_its_limit(v1: Kernel) -> None:
    v1.group("memory", memory_limit_in_bytes="9223372036854771712\n")
    with confined(limit_memory(EMULATED, root=v1.root), root=v1.root) as confinement:
        assert "is limited to 8 GiB" in confinement.placement.memory
    v1.group("memory/jobs", memory_limit_in_bytes=f"{2**31}\n")
    with confined(limit_memory(EMULATED, root=v1.root), root=v1.root) as confinement:
        assert confinement.placement.memory.endswith("not limited: this process itself may use 2 GiB, less than the instance has")
    assert v1.made == []


@pytest.mark.parametrize(
    ("mounts", "why"),
    [("", "no control groups with a memory controller are mounted"), (V2_MOUNT, "no control group above this process passes the memory")],
)
def test_without_a_place_for_groups_memory_is_only_checked(kernel: Kernel, mounts: str, why: str) -> None:
    kernel.describe(mounts.format(inside="/"), "0::/\n")
    kernel.group("", cgroup_controllers="memory\n")
    with confined(limit_memory(EMULATED, root=kernel.root), root=kernel.root) as confinement:
        assert why in confinement.placement.note
        assert confinement.admit(1) is None


def test_every_worker_gets_the_instances_memory_no_swap_and_its_cpus_in_v2(v2: Kernel) -> None:
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        assert confinement.placement.memory == "memory is limited to 8 GiB, without swap (cgroup v2)"
        confinement.admit(4321)
        confinement.admit(4322)
        found = [v2.written[name] for name in sorted(v2.left())]
    expected = {"memory.max": LIMIT, "memory.swap.max": "0", "cpuset.cpus": "0"}
    assert found == [expected | {"cgroup.procs": "4321"}, expected | {"cgroup.procs": "4322"}]
    assert v2.left() == []


def test_every_worker_gets_the_instances_memory_no_swap_and_its_cpus_in_v1(v1: Kernel) -> None:
    with confined(limit_memory(EMULATED, root=v1.root), root=v1.root) as confinement:
        confinement.admit(4321)
        written = v1.written[v1.left()[0]]
    assert {name: written[name] for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")} == dict.fromkeys(
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), LIMIT
    )
    assert (written["cpuset.cpus"], written["cpuset.mems"], written["cgroup.procs"]) == ("0", "0", "4321")
    assert v1.left() == []


def test_a_group_that_can_be_made_in_only_one_of_two_hierarchies_is_removed_in_v1(v1: Kernel) -> None:
    hierarchy = Legacy(v1.top / "memory/jobs", v1.top / "gone")
    with pytest.raises(FileNotFoundError):
        hierarchy.make("liftgate-1-1-1", Limits(memory_bytes=2**30, cpus=(0,)))
    assert v1.left() == []


def test_what_the_kernel_forbids_is_found_out_before_anything_is_measured(v2: Kernel) -> None:
    v2.refuse_joins = True
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        assert confinement.placement.memory == "memory is checked, not limited: control groups (v2) cannot be used here: Permission denied"
        assert confinement.admit(os.getpid()) is None
    assert v2.left() == []


def test_groups_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(v2: Kernel) -> None:
    ended = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    ended.wait()
    mine = f"liftgate-{os.getpid()}-1-1"  # this process's number, used by another one before
    for name in (f"liftgate-{ended.pid}-77-1", mine, "liftgate-1-other"):
        v2.group(f"app.slice/{name}")
    parent = os.getppid()
    start = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    v2.group(f"app.slice/liftgate-{parent}-{start}-1")
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root):
        assert sorted(v2.left()) == sorted([f"liftgate-{parent}-{start}-1", "liftgate-1-other"])


def test_a_worker_that_the_kernel_ended_for_want_of_memory_says_so(v2: Kernel) -> None:
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        worker = WorkerHandle("v1.1", (0,), 1, module="abc", confinement=confinement)  # ends by itself
        group = next(v2.top.rglob("liftgate-*"))
        (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
        with pytest.raises(RunFailed, match=r"^measuring v1\.1: it needs more than the 8 GiB of m5\.large: the kernel ended it"):
            worker.open(Path("m"), Path("s"), Path("r"), 1)
        worker.kill()
        assert v2.left() == []


def test_a_worker_that_ended_for_another_reason_does_not(v2: Kernel) -> None:
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        worker = WorkerHandle("v1.1", (0,), 1, module="abc", confinement=confinement)
        with pytest.raises(RunFailed, match="the worker process died"):
            worker.open(Path("m"), Path("s"), Path("r"), 1)
        worker.kill()


def test_a_group_that_cannot_be_made_later_ends_the_worker(v2: Kernel) -> None:
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        v2.refuse_joins = True
        with pytest.raises(RunFailed, match="Permission denied; LIFTGATE_CGROUP=off measures without a limit"):
            WorkerHandle("v1.1", (0,), 1, confinement=confinement)
    assert v2.left() == []


def test_a_person_may_switch_it_off_but_not_mistype_that(v2: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTGATE_CGROUP", "off")
    with confined(limit_memory(EMULATED, root=v2.root), root=v2.root) as confinement:
        assert confinement.placement.memory == "memory is checked, not limited: LIFTGATE_CGROUP=off"
    monkeypatch.setenv("LIFTGATE_CGROUP", "no")
    with pytest.raises(InputError, match="expected auto or off, found 'no'"):
        limit_memory(EMULATED, root=v2.root)


def test_the_machine_itself_is_not_limited(v2: Kernel) -> None:
    measured = msgspec.structs.replace(EMULATED, label="measured", memory="")
    with confined(limit_memory(measured, root=v2.root), root=v2.root) as confinement:
        assert confinement.placement.note == "s"
        assert confinement.admit(1) is None
    assert v2.made == []


def test_a_placement_that_was_not_limited_is_not_confined(v2: Kernel) -> None:
    with confined(EMULATED, root=v2.root) as confinement:
        assert confinement.admit(1) is None
    assert v2.made == []


def test_a_worker_sees_the_gpu_it_was_placed_on_and_no_other() -> None:
    gpu = GpuFacts(name="Tesla T4", memory_gib=15.0, driver="550", uuid="GPU-1b2c")
    assert Confinement(msgspec.structs.replace(EMULATED, gpu=gpu), None).environment == {"CUDA_VISIBLE_DEVICES": "GPU-1b2c"}
    assert Confinement(EMULATED, None).environment == {}
