"""A whole confinement: counts, signals, modes, memory, the folder, and the end, with and without namespaces."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from executor.sandbox import identity
from executor.sandbox.confinement import Layers
from executor.sandbox.kernel import syscall
from executor.sandbox.limits import MIB
from executor.sandbox.syscalls import CLONE_PARENT
from tests.sandbox.confined import LIMITS, confined
from tests.sandbox.holders import peak_memory

LAYERS = {
    "namespaces": Layers(),
    "plain": Layers(namespaces=False),
    "old landlock": Layers(namespaces=False, landlock_abi=2),
}


@pytest.fixture(params=LAYERS)
def layers(request):
    return LAYERS[request.param]


def test_exactly_as_many_processes_as_allowed_can_live(layers):
    def act():
        count = 1
        with contextlib.suppress(BlockingIOError):
            for _ in range(40):
                if os.fork() == 0:
                    time.sleep(5)
                    os._exit(0)
                count += 1
        return count

    outcome = confined(act, layers=layers)
    assert outcome.value == LIMITS.processes
    assert outcome.denials == {"processes": 1}
    assert not outcome.left


def test_exactly_as_many_threads_as_allowed_can_live(layers):
    def act():
        stop, count = threading.Event(), 1
        with contextlib.suppress(RuntimeError):
            for _ in range(60):
                threading.Thread(target=stop.wait, daemon=True).start()
                count += 1
        return count

    assert confined(act, layers=layers).value == LIMITS.threads


def test_many_short_processes_are_no_bomb(layers):
    def act():
        for _ in range(100):
            subprocess.run(["true"], check=True)
        return "done"

    outcome = confined(act, layers=layers)
    assert outcome.value == "done", outcome.error
    assert not outcome.denials


CLONE_VFORK = 0x4000


def siblings():
    """Tries to make four children of the leader: from a thread, then from the first one, once as vfork does."""
    said = []

    def make(flags=0):
        try:
            pid = syscall(56, CLONE_PARENT | signal.SIGCHLD | flags, 0, 0, 0, 0)
        except PermissionError:
            said.append("refused")
            return
        if pid == 0:
            os._exit(0)
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
        said.append("made")

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    make(CLONE_VFORK)
    make()
    make()
    return said


def test_a_worker_makes_a_child_of_its_leader_only_when_that_wants_a_copy(layers):
    outcome = confined(siblings, layers=layers, copies=True)
    assert outcome.value == ["refused", "refused", "made", "refused"], outcome.error
    assert not outcome.left
    outcome = confined(siblings, layers=layers)
    assert outcome.value == ["refused"] * 4, outcome.error


def test_where_no_leader_is_asked_nobody_makes_a_child_of_it(layers):
    outcome = confined(siblings, layers=replace(layers, notifier=False), copies=True)
    assert outcome.value == ["refused"] * 4, outcome.error


def test_signals_reach_own_children_and_nobody_else(layers):
    outside = subprocess.Popen(["sleep", "30"])

    def act():
        child = subprocess.Popen(["sleep", "30"], start_new_session=True)
        os.killpg(child.pid, signal.SIGTERM)
        refused = 0
        for target in (outside.pid, -outside.pid):
            try:
                os.kill(target, signal.SIGKILL)
            except OSError:
                refused += 1
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGCONT)
        return [child.wait(5), refused]

    outcome = confined(act, layers=layers)
    assert outcome.value == [-signal.SIGTERM, 2], outcome.error
    assert outside.poll() is None
    outside.kill()
    outside.wait()


def test_a_process_that_hides_is_killed_in_the_end(layers):
    # all wait for all to be there: forks of the first ones could else leave no room to start the last one
    program = (
        "import os, time\n"
        "open(f'{os.getpid()}.ready', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.001)\n"
        "end = time.monotonic() + 20\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.setsid()\n"
        "    except OSError: pass\n"
    )

    def act():
        for _ in range(3):
            subprocess.Popen([sys.executable, "-S", "-c", program], start_new_session=True)
        while sum(name.endswith(".ready") for name in os.listdir()) < 3:
            time.sleep(0.01)
        open("go", "w").close()
        time.sleep(0.3)
        return os.getpid()

    outcome = confined(act, layers=layers)
    assert outcome.value, outcome.error
    assert outcome.left == []


def test_times_and_modes_change_in_the_folder_only(layers):
    before = os.stat("/usr")

    def act():
        open("a", "w").close()
        os.symlink("/usr", "door")
        os.chmod("a", 0o640)
        os.utime("a", ns=(10**9, 2 * 10**9))
        for path in ("/usr", "door"):
            for change in (lambda p=path: os.chmod(p, 0o777), lambda p=path: os.utime(p, (1, 1))):
                with contextlib.suppress(PermissionError):
                    change()
                    return "changed " + path
        info = os.stat("a")
        return [info.st_mode & 0o777, info.st_atime, info.st_mtime]

    outcome = confined(act, layers=layers)
    assert outcome.value == [0o640, 1.0, 2.0], outcome.error
    after = os.stat("/usr")
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize("holder", ["heap", "memfd", "forgotten", "sockets"])
def test_memory_is_found_wherever_it_is_held(layers, holder):
    held = peak_memory(holder, layers) - peak_memory("nothing", layers)
    assert 100 * MIB < held < 300 * MIB


def test_memory_that_children_share_is_counted_once(layers):
    # 150 MiB in five processes
    assert 150 * MIB < peak_memory("shared", layers) < LIMITS.memory


def test_unlinked_files_count_for_the_folder(layers):
    def act():
        fd = os.open("gone", os.O_CREAT | os.O_RDWR)
        os.unlink("gone")
        for _ in range(8):
            os.write(fd, b"x" * MIB)
        time.sleep(2)
        return fd

    outcome = confined(act, layers=layers)
    assert outcome.peak["unlinked"] >= 8 * MIB


def test_the_folder_is_measured_whatever_is_in_it(layers):
    def act():
        os.makedirs("locked/in")
        with open("locked/in/big", "wb") as file:
            file.write(b"x" * (4 * MIB))
        os.link("locked/in/big", "twice")
        os.symlink("/usr", "door")
        os.chmod("locked", 0)
        for _ in range(300):
            os.mkdir("deep")
            os.chdir("deep")
        return True

    def watch(confinement):
        confinement.folder_meter.full()
        return [confinement.folder_meter.bytes, confinement.folder_meter.files]

    outcome = confined(act, layers=layers, watch=watch)
    size, files = outcome.leader
    assert 4 * MIB <= size < 7 * MIB
    assert files > 1_000_000  # nested beyond reason counts as too many files


def test_the_limits_of_a_process_are_hard(layers):
    def act():
        import resource

        found = {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE")}
        raised = 0
        for name, (_, hard) in found.items():
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1))
                raised += 1
        try:
            with open("big", "wb") as file:
                file.write(b"x" * (LIMITS.folder_bytes + 1))
        except OSError as error:
            return [raised, found["RLIMIT_NOFILE"][1], error.errno]
        return "wrote"

    assert confined(act, layers=layers).value == [0, LIMITS.open_files, 27]


def test_a_session_has_no_privileges_and_a_user_of_its_own_where_that_is_possible():
    uid = identity.session_user(7) if identity.may_change_user() else None

    def act():
        with open("/proc/self/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        return [os.getuid(), int(status["CapEff"], 16), int(status["CapPrm"], 16), int(status["NoNewPrivs"])]

    outcome = confined(act, uid=uid)
    assert outcome.value == [os.getuid() if uid is None else uid, 0, 0, 1], outcome.error


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("         0          0 4294967295\n", 4_294_767_295),
        ("0 1000000 1000000000\n", 999_800_000),
        ("0 1000 1\n", 0),
        ("0 100000 65536\n", 0),
        ("0 1000 1\n1 100000 300000\n", 100_001),
        ("", 0),
        ("no map", 0),
    ],
)
def test_only_ids_that_the_user_namespace_has_are_taken(text, count):
    assert identity.mapped(text) == count


def test_the_view_of_a_session_with_namespaces_holds_nothing_of_the_host():
    def act():
        with open("/dev/shm/x", "w") as file:
            file.write("x")
        others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]
        return [sorted(os.listdir("/")), others, os.path.exists("/etc/passwd"), os.getcwd()]

    outcome = confined(act)
    root, others, passwd, folder = outcome.value
    assert not {"home", "var", "run", "mnt"} & set(root) and not passwd
    assert others == [] and folder == "/session"


def test_a_worker_has_no_descriptor_that_answers_the_filter():
    def act():
        found = []
        for fd in range(3, 1024):
            with contextlib.suppress(OSError):
                link = os.readlink(f"/proc/self/fd/{fd}")
                if "seccomp" in link or "landlock" in link:
                    found.append(link)
        return found

    assert confined(act).value == []


def test_the_init_of_a_session_holds_next_to_no_memory_and_may_only_wait():
    def look(confinement):
        until, fields = time.monotonic() + 5, {}
        while fields.get("Seccomp", "0") == "0" and time.monotonic() < until:  # it may not have come to that yet
            status = confinement.tree.read(f"{confinement.init}/status").decode()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return {"resident": int(fields["VmRSS"].split()[0]), "seccomp": fields["Seccomp"], "rights": fields["CapEff"]}

    outcome = confined(os.getpid, watch=look)
    assert outcome.leader["resident"] < 100, outcome
    assert outcome.leader["seccomp"] == "1"
    assert int(outcome.leader["rights"], 16) == 0
    assert not outcome.left
