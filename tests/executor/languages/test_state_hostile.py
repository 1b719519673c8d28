"""Saving and restoring hold against variables that fight back, and against state files that are not what was written."""

# ruff: noqa: E501  a line a thing reads best

import json
import time

import pytest
from python_fixtures import *  # noqa: F403  fixtures


@pytest.fixture
def fresh(zygote, tmp_path):
    """Gives clean workers in the folder of `worker`."""
    started = []

    def start():
        started.append(zygote.fork(tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.close()


def reasons(lost):
    return {entry["name"]: entry["reason"] for entry in lost}


HOSTILE = """
import os, time
class Raises:
    def __reduce__(self): raise RuntimeError('no')
class Hangs:
    def __reduce__(self):
        while True: pass
class Swallows:
    def __reduce__(self):
        while True:
            try: time.sleep(10)
            except BaseException: pass
class Forks:
    def __reduce__(self):
        os.fork()
        return Forks, ()
class Prints:
    def __reduce__(self):
        print('printed'); os.write(1, b'written'); os.write(2, b'complained')
        return Prints, ()
class Meddles:
    def __getstate__(self):
        global fine
        fine = 'meddled with'
        return {'x': 1}
class Huge:
    def __reduce__(self): return bytes, (b'x' * 60_000_000,)
class Exits:
    def __reduce__(self): raise SystemExit(3)
fine = 'as it was'
"""


def test_hostile_variables_are_lost_alone(worker, fresh):
    worker.run(HOSTILE)
    worker.run("r, h, f, p, m, g, e = Raises(), Hangs(), Forks(), Prints(), Meddles(), Huge(), Exits()\nlast = fine")
    head = worker.save(limit=50_000_000)
    lost = reasons(head.lost)
    assert lost == {
        "r": "Raises object that raised RuntimeError when it was saved",
        "h": "saving it took too long",
        "g": "too large: a saved state may take 50 MB",
        "e": "Exits object that raised SystemExit when it was saved",
    }
    assert (worker.folder / ".state" / "python").stat().st_size < 50_000_000
    cell = worker.run("fine, len(os.listdir('.state'))")
    assert (cell.result, cell.out, cell.err) == ("('as it was', 1)", "", "")
    second = fresh()
    event = second.restore()
    assert reasons(event["lost"]) == lost
    assert second.run("fine, last, type(f).__name__, m.x").result == "('as it was', 'as it was', 'Forks', 1)"


def test_a_variable_that_swallows_its_alarm_costs_the_copy_only_its_own_time(worker, fresh):
    worker.run(HOSTILE + "first, s, after = 1, [Swallows()], 2")
    worker.control.sendall(worker.speaker.save(".state/python", limit=1 << 20))
    assert worker.run("first + after").result == "3"


def test_saving_in_place_gets_past_what_hangs_and_leaves_the_guests_timer(worker):
    worker.run(
        HOSTILE
        + "import signal\nsignal.signal(signal.SIGALRM, print)\nsignal.setitimer(signal.ITIMER_REAL, 500)\nh = Hangs()"
    )
    assert reasons(worker.save(fork=False).lost) == {"h": "saving it took too long"}
    cell = worker.run("signal.getsignal(signal.SIGALRM) is print, 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500")
    assert cell.result == "(True, True)"


def test_names_that_are_no_identifiers_come_back(worker, fresh):
    worker.run(
        "globals()['not a name'] = 1\nglobals()[5] = 'five'\nglobals()['n' * 5000] = 2\nglobals()['\\ud800'] = 3"
    )
    head = worker.save()
    assert "not a name" in head.names
    assert head.lost == ()
    second = fresh()
    second.restore()
    cell = second.run("globals()['not a name'], globals()[5], globals()['n' * 5000], globals()['\\ud800']")
    assert cell.result == "(1, 'five', 2, 3)"


def test_a_hundred_thousand_names_are_kept_and_five_hundred_told(worker, fresh):
    worker.run("for i in range(100_000): globals()[f'v{i}'] = i")
    head = worker.save()
    assert 100 < len(head.names) <= 500
    second = fresh()
    assert second.restore()["problem"] == ""
    assert second.run("sum(globals()[f'v{i}'] for i in range(100_000))").result == str(sum(range(100_000)))


def test_many_lost_names_fit_into_the_head(worker, fresh):
    worker.run("import threading\nfor i in range(2000): globals()['lock' * 40 + str(i)] = threading.Lock()\nkept = 1")
    head = worker.save()
    assert 100 < len(head.lost) <= 500
    second = fresh()
    assert len(second.restore()["lost"]) == len(head.lost)
    assert second.run("kept").result == "1"


def test_deep_structures_come_back_or_are_named(worker, fresh):
    worker.run(
        "deep = []\nfor _ in range(8_000): deep = [deep]\ntoo_deep = []\nfor _ in range(300_000): too_deep = [too_deep]\nx = 1"
    )
    head = worker.save()
    assert reasons(head.lost) == {"too_deep": "nested too deeply"}
    second = fresh()
    assert second.restore()["problem"] == ""
    assert second.run("n = 0\nwhile deep: deep, n = deep[0], n + 1\nn, x").result == "(8000, 1)"


@pytest.mark.parametrize(
    "mischief",
    [
        "import sys\nfor name in ('numpy', 'pickle', '_pickle', 'copyreg', 'cloudpickle', 'executor'): sys.modules.pop(name, None)",
        "import sys\nsys.modules.clear()",
        "import pickle, copyreg, cloudpickle\npickle.Pickler = pickle.dumps = copyreg.__newobj__ = cloudpickle.Pickler = None",
        "import builtins\nbuiltins.sorted = builtins.open = builtins.vars = builtins.issubclass = None",
        "import os\nos.fork = os.open = os.rename = os._exit = None",
        "import os\nos.register_at_fork(before=lambda: 1 / 0, after_in_child=lambda: 1 / 0)",
        "import signal\nfor n in (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)",
        "import gc, sys\ngc.set_threshold(1)\nsys.setrecursionlimit(600)",
        "import os\nos.chdir('/')",
    ],
)  # fmt: skip
def test_a_broken_interpreter_still_saves(worker, fresh, mischief):
    worker.run("a = np.arange(5.0)\nb = {'a': a}\ndef f(): return a.sum()\nclass C: pass\nc = C()")
    worker.run(mischief)
    head = worker.save()
    assert head.problem == ""
    assert {"a", "b", "f", "C", "c"} <= set(head.names), head.lost
    second = fresh()
    second.restore()
    assert second.run("f(), b['a'] is a, type(c) is C").result == "(np.float64(10.0), True, True)"


def test_what_does_not_load_is_lost_alone_and_left_out_the_next_time(worker, fresh):
    worker.run(
        "class NoLoad:\n    def __reduce__(self): return int, ('x',)\n"
        "class NoState:\n    def __setstate__(self, state): raise KeyError('state')\n"
        "class NoHash:\n    h = True\n    def __hash__(self): return 1 if vars(self) else 1 // 0\n"
        "shared = [1]\na = NoLoad()\nb = [[NoLoad()], shared]\nc = NoState()\nc.x = 1\nalias = c\n"
        "def uses():\n    return shared\nkeep = {'s': shared, 'f': uses}\n"
        "import sys, types\nsys.modules['made'] = made = types.ModuleType('made')"
    )
    head = worker.save()
    assert head.lost == ()
    second = fresh()
    event = second.restore()
    assert event["problem"] == ""
    said = reasons(event["lost"])
    assert set(said) == {"a", "b", "c", "alias", "made"}
    assert said["a"].startswith("loading it raised ValueError: invalid literal for int()")
    assert said["c"] == said["alias"] == "loading it raised KeyError: 'state'"
    assert said["made"] == "module made cannot be imported"
    assert {entry["cell"] for entry in event["lost"]} == {1}
    assert second.run("keep['s'] is shared is keep['f'](), shared").result == "(True, [1])"
    head = worker.save(without=sorted(said))
    assert not set(said) & set(head.names)
    third = fresh()
    event = third.restore()
    assert event["lost"] == []
    assert third.run("keep['s'] is shared is uses()").result == "True"


# a copy is made in another way where there are threads
THREADS = {"alone": "", "with threads": "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"}


@pytest.mark.parametrize("threads", THREADS.values(), ids=THREADS)
def test_the_guest_does_not_meet_the_copy(worker, threads):
    meet = "try:\n    os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError:\n    print('no child', heard)"
    worker.run(f"{threads}import os, signal\nheard = []\nsignal.signal(signal.SIGCHLD, lambda *a: heard.append(a))")
    worker.run(
        "import time\nclass Slow:\n    def __reduce__(self):\n        while not os.path.exists('go'): time.sleep(0.01)\n        return Slow, ()\nx = Slow()"
    )
    path = worker.folder / ".state" / "python"
    worker.control.sendall(worker.speaker.save(".state/python", limit=1 << 30))
    # while it is at work, and when it has ended
    assert worker.run(meet).out == "no child []\n"
    assert not path.exists()
    (worker.folder / "go").touch()
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.run(meet).out == "no child []\n"


@pytest.mark.parametrize("threads", THREADS.values(), ids=THREADS)
@pytest.mark.parametrize(
    "end",
    [
        "os.abort()",
        "signal.raise_signal(signal.SIGUSR1)",
        "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)",
        "threading.Thread(target=os.abort).start(), time.sleep(9)",
    ],
)
def test_a_copy_that_kills_itself_kills_nobody_else(worker, threads, end):
    worker.run(
        f"{threads}import os, signal, threading, time\nclass Ends:\n    def __reduce__(self):\n        open('at it', 'w').close()\n        {end}\n"
    )
    worker.run("x = Ends()\nhere = os.getpid()")
    worker.control.sendall(worker.speaker.save(".state/python", limit=1 << 30))
    until = time.monotonic() + 20
    while not (worker.folder / "at it").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    cell = worker.run("os.getpid() == here, threading.active_count()")
    assert cell.result == f"(True, {2 if threads else 1})"
    assert (worker.folder / "at it").exists() and not (worker.folder / ".state" / "python").exists()


def test_a_fork_of_the_state_that_the_guest_hears_of_is_as_any_other(worker):
    worker.run(
        "import os, threading\nheard = []\n"
        "os.register_at_fork(before=lambda: heard.append('before'), after_in_parent=lambda: heard.append('parent'))"
    )
    worker.save()
    cell = worker.run("heard, threading.main_thread() is threading.current_thread()")
    assert cell.result == "(['before', 'parent'], True)"
    assert (
        worker.run("import json, subprocess\nsubprocess.run(['echo', 'x'], capture_output=True).stdout").result
        == "b'x\\n'"
    )


def test_a_cell_right_after_the_order_runs_while_the_copy_works(worker):
    worker.run(
        "import os, time\nclass Slow:\n    def __reduce__(self):\n        while not os.path.exists('go'): time.sleep(0.01)\n        return Slow, ()\nslow = Slow()"
    )
    worker.control.sendall(worker.speaker.save(".state/python", limit=1 << 30))
    assert worker.run("1 + 1").result == "2"
    # a cell that waited for the copy would find the file, as a name that takes more than 4 s is given up
    assert not (worker.folder / ".state" / "python").exists()
    (worker.folder / "go").touch()


def test_the_state_is_that_of_the_moment_of_the_order(worker, fresh):
    worker.run(
        "import time\nclass Slow:\n    def __reduce__(self):\n        time.sleep(1)\n        return Slow, ()\nslow, n = Slow(), 1"
    )
    path = worker.folder / ".state" / "python"
    worker.control.sendall(worker.speaker.save(".state/python", limit=1 << 30))
    worker.run("n = 2")
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    second = fresh()
    second.restore()
    assert second.run("n").result == "1"


def test_what_a_file_holds_back_is_written_once(worker, fresh):
    worker.run("top = open('top.txt', 'w')\ntop.write('1')\nnested = [open('nested.txt', 'w')]\nnested[0].write('1')")
    head = worker.save()
    assert reasons(head.lost) == {"nested": "holds an open file whose last writes have not reached the disk"}
    worker.run("top.write('2'); top.close(); nested[0].write('2'); nested[0].close()")
    assert [(worker.folder / name).read_text() for name in ("top.txt", "nested.txt")] == ["12", "12"]


def test_a_file_that_has_grown_since_is_lost(worker, fresh):
    worker.run("log = open('log.txt', 'a')\nlog.write('1\\n')")
    worker.save()
    worker.run("log.write('2\\n'); log.flush()")
    second = fresh()
    event = second.restore()
    assert reasons(event["lost"]) == {"log": "loading it raised ValueError: the file has another size now"}


def test_reading_in_the_copy_moves_no_file_of_the_guests(worker):
    worker.run(
        "from pathlib import Path\nPath('f.bin').write_bytes(bytes(100_000))\nraw = open('f.bin', 'rb', buffering=0)\nraw.seek(10)\n"
        "class Reads:\n    def __reduce__(self):\n        raw.read(500); raw.seek(0)\n        return Reads, ()\nreads = Reads()"
    )
    worker.save()
    assert worker.run("raw.tell()").result == "10"


def test_a_full_disk_is_said(worker, fresh):
    worker.run(
        "import resource\na = np.random.rand(1_000_000)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000,) * 2)"
    )
    assert "could not be written" in worker.save().problem
    assert worker.run("1").result == "1"


@pytest.fixture(scope="module")
def saved(zygote, tmp_path_factory):
    """A state file's bytes."""
    worker = zygote.fork(tmp_path_factory.mktemp("saved"))
    worker.run("a = np.arange(10_000.0)\ndef f(): return 5\nt = 'text'\nclass C: pass\nd = pd.DataFrame({'x': [1]})")
    worker.save()
    worker.close()
    return (worker.folder / ".state" / "python").read_bytes()


def replaced_head(data, **changes):
    line, _, body = data.partition(b"\n")
    return json.dumps(json.loads(line) | changes).encode() + b"\n" + body


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"\n",
        lambda data: b"{}\n",
        lambda data: b"not json\n" + data,
        lambda data: data[:1000],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[: len(data) // 2] + b"\x00" * (len(data) - len(data) // 2),
        lambda data: data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:],
        lambda data: b"x" * 500_000,
        lambda data: replaced_head(data, problem="The disk was full."),
        lambda data: replaced_head(data, names=[1]),
        None,
    ],
)
def test_a_damaged_file_is_a_problem_and_leaves_a_clean_interpreter(worker, saved, damage):
    if damage is not None:
        (worker.folder / ".state").mkdir()
        (worker.folder / ".state" / "python").write_bytes(damage(saved))
    event = worker.restore()
    assert event["problem"].endswith(".")
    assert event["names"] == []
    cell = worker.run("sorted(n for n in globals() if n in ('a', 'f', 't', 'C', 'd')), np.arange(3).sum()")
    assert cell.result == "([], np.int64(3))"


def test_a_pickle_that_is_wrong_in_itself_is_a_problem(worker, saved):
    import struct
    import zlib

    line = saved.partition(b"\n")[0]
    for body in (b"", b"garbage", b"\x80\x05N.", b"\x80\x05]\x94.\x80\x05K\x05."):
        trailer = struct.pack(">4sIQ", b"PyS1", zlib.crc32(body), len(body))
        (worker.folder / ".state").mkdir(exist_ok=True)
        (worker.folder / ".state" / "python").write_bytes(line + b"\n" + body + trailer)
        assert "could not be loaded" in worker.restore()["problem"]
    assert worker.run("1").result == "1"


def test_code_of_another_python_and_objects_of_another_major_are_lost(worker, saved):
    versions = json.loads(saved.partition(b"\n")[0])["versions"] | {"python": "3.99.1", "pandas": "0.25.0"}
    (worker.folder / ".state").mkdir()
    (worker.folder / ".state" / "python").write_bytes(replaced_head(saved, versions=versions))
    event = worker.restore()
    said = reasons(event["lost"])
    assert event["problem"] == ""
    assert set(said) == {"f", "d"}
    assert said["f"].startswith("code was compiled for Python 3.99.1, and 3.")
    assert said["d"].startswith("was made with pandas 0.25.0, and ")
    assert worker.run("a.sum(), t, type(C).__name__").result == "(np.float64(49995000.0), 'text', 'type')"


def test_a_link_is_not_followed(worker, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("kept")
    (worker.folder / ".state").mkdir()
    (worker.folder / ".state" / "python.part").symlink_to(outside / "kept")
    worker.save()
    assert (outside / "kept").read_text() == "kept"
    assert (worker.folder / ".state" / "python").stat().st_mode & 0o777 == 0o600
