"""Python packages in real sessions, by the real pip, from an index of our own.

The sessions of a module share the store, as all sessions do: what means another package needs another name.
"""

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from executor import BackendFailed, Busy, Executor, FileRefused, InvalidRequest, NoSuchSession
from executor.events import PackagesInstalled
from executor.packages.client import Job, environment
from tests.executor.packages.indexes import hanging_host, sdist, wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def started(make_settings, **overrides):
    """An executor with settings of its own, a session in it, and a way to install there."""
    async with Executor(make_settings(spare_sessions=0, **overrides)) as executor:
        session = await executor.create_session(owner="alice")

        async def install(*packages, **kwargs):
            return await executor.install_packages(
                list(packages), **{"language": "python", "owner": "alice", "session_id": session.id, **kwargs}
            )

        yield executor, session.id, install


def versions(packages):
    return {package.name: package.version for package in packages}


def reasons(report):
    return {refusal.request: refusal.reason for refusal in report.refused}


async def install(caller, *packages, **kwargs):
    return await caller.executor.install_packages(
        list(packages), **{"language": "python", "owner": caller.owner, "session_id": caller.session_id, **kwargs}
    )


async def value(caller, code, **kwargs):
    result = await caller.run(f"print({code}, end='')", **kwargs)
    assert result.success, result
    return result.stdout


async def test_a_package_is_importable_at_once_although_its_import_failed_before(caller, index):
    wheel(index, "greeting", "1.2", needs=["helping>=2"])
    wheel(index, "helping", "2.1")
    failed = await caller.run("import greeting")
    assert failed.error.type == "ModuleNotFoundError"
    said = []
    report = await install(caller, "greeting", progress=said.append)
    assert report.success and versions(report.installed) == {"greeting": "1.2", "helping": "2.1"}
    assert [package.name for package in report.installed if package.requested] == ["greeting"]
    assert report.size > 0 and report.seconds > 0
    assert said and all(sentence.endswith(".") for sentence in said) and len(said) == len(set(said))
    assert await value(caller, "__import__('greeting').version, __import__('helping').version") == "1.2 2.1"
    assert await value(caller, "__import__('importlib.metadata').metadata.version('greeting')") == "1.2"
    # also for what a shell starts, and not listed among the session's own files
    shell = await caller.run("python -c 'import greeting; print(greeting.version)'", "bash")
    assert shell.stdout == "1.2\n"
    assert await caller.files() == []


async def test_another_session_gets_a_copy_of_its_own_only_when_it_asks(executor, caller, index):
    wheel(index, "greeting", "1.2")
    await install(caller, "greeting")
    other = await executor.create_session(owner="bob")
    foreign = {"owner": "bob", "session_id": other.id}
    missing = await executor.execute("import greeting", language="python", **foreign)
    assert missing.error.type == "ModuleNotFoundError"
    await executor.install_packages(["greeting"], language="python", **foreign)
    spoiled = await caller.run("open(__import__('greeting').__file__, 'w').write('version = 666')")
    assert spoiled.success
    seen = await executor.execute(
        "import greeting, os; print(greeting.version, os.stat(greeting.__file__).st_nlink)",
        language="python",
        **foreign,
    )
    assert seen.stdout == "1.2 1\n"
    await executor.close_session(other.id, owner="bob")
    with pytest.raises(NoSuchSession):
        await executor.install_packages(["greeting"], language="python", owner="bob", session_id=caller.session_id)


async def test_no_session_reaches_the_store(executor, caller, index):
    wheel(index, "greeting", "1.2")
    await install(caller, "greeting")
    store = Path(executor.settings.work_dir, "packages")
    kept = [path for path in store.rglob("greeting.py") if path.is_file()]
    assert kept
    for code in (
        f"open({str(kept[0])!r}).read()",
        f"open({str(kept[0])!r}, 'a')",
        f"__import__('os').listdir({str(store)!r})",
    ):
        result = await caller.run(code)
        if executor.sandbox.level != "weak":
            assert result.error is not None and result.error.type in ("PermissionError", "FileNotFoundError"), result
    assert kept[0].read_text() == "version = '1.2'\n"


async def test_what_the_interpreter_has_stays_as_it_is(caller, index):
    import numpy

    wheel(index, "numpy", "1.0")
    wheel(index, "oldish", needs=["numpy==1.0"])
    wheel(index, "fitting", needs=["numpy"])
    report = await install(caller, "numpy", "pandas==0.1", "fitting")
    assert versions(report.present) == {"numpy": numpy.__version__}
    assert versions(report.installed) == {"fitting": "1.0"}
    assert "belongs to the interpreter" in reasons(report)["pandas==0.1"]
    conflict = await install(caller, "oldish")
    assert not conflict.installed
    assert f"numpy=={numpy.__version__}" in reasons(conflict)["oldish"] and "conflict" in reasons(conflict)["oldish"]
    assert await value(caller, "__import__('numpy').__version__") == numpy.__version__


async def test_a_package_that_hides_a_module_of_the_interpreter_is_refused(caller, index):
    wheel(index, "sly", files={"json/__init__.py": ""})
    wheel(index, "sly2", files={"numpy.py": ""})
    wheel(index, "careless", files={"careless.py": "", "tests/__init__.py": ""})
    assert "module json that would hide" in reasons(await install(caller, "sly"))["sly"]
    assert "module numpy that would hide" in reasons(await install(caller, "sly2"))["sly2"]
    assert (await install(caller, "careless")).success


async def test_what_cannot_be_had_is_named_and_the_rest_is_installed(caller, index):
    wheel(index, "polite", "1.2")
    sdist(index, "tobuild")
    wheel(index, "needing", needs=["tobuild"])
    wheel(index, "future", files={"future_.py": ""}, needs=["polite>=9"])
    report = await install(caller, "polite", "tobuild", "nosuchthing", "polite2", "needing", "../x")
    assert versions(report.installed) == {"polite": "1.2"}
    why = reasons(report)
    assert "source that has to be built" in why["tobuild"]
    assert why["nosuchthing"] == "there is no package called nosuchthing; check the spelling"
    assert "only names and versions" in why["../x"]
    assert "it needs tobuild" in why["needing"]
    assert not (index / "was-built").exists()
    conflict = reasons(await install(caller, "future", "polite"))
    assert conflict["future"] == conflict["polite"]
    assert "requirements conflict: future 1.0 needs polite>=9" in conflict["future"]
    versioned = await install(caller, "polite==7")
    assert "no such version of polite; the newest are 1.2" in reasons(versioned)["polite==7"]


async def test_another_version_replaces_the_former_one_whole_and_says_how_to_get_it(caller, index):
    wheel(index, "greeting", "1.2", files={"greeting/__init__.py": "version='1.2'", "greeting/old.py": ""})
    wheel(index, "greeting", "2.0", files={"greeting/__init__.py": "version='2.0'"})
    wheel(index, "another")
    await install(caller, "greeting==1.2")
    assert await value(caller, "__import__('greeting').version") == "1.2"
    report = await install(caller, "greeting==2.0", "another")
    assert {package.name: package.replaced for package in report.installed} == {"greeting": "1.2", "another": None}
    assert any("restarted with `import os; os._exit(0)`" in notice for notice in report.notices)
    await caller.run("import os; os._exit(0)")
    assert await value(caller, "__import__('greeting').version") == "2.0"
    assert await value(caller, "__import__('importlib.util').util.find_spec('greeting.old')") == "None"


async def test_a_failed_call_leaves_the_former_packages(caller, index):
    wheel(index, "greeting", "1.2")
    await install(caller, "greeting")
    await install(caller, "nosuchthing")
    assert await value(caller, "__import__('greeting').version") == "1.2"
    assert (
        await value(caller, "[n for n in __import__('os').listdir('.tmp') if n.startswith(('install', 'trash'))]")
        == "[]"
    )


@pytest.mark.parametrize(
    ("packages", "language", "sentence"),
    [
        ([], "python", "is empty"),
        ([f"p{n}" for n in range(100)], "python", "100 packages were asked for; at most 50"),
        ("polars", "python", "must be a list"),
        ([1], "python", "must be a list"),
        (["x"], "bash", "python and javascript, not for 'bash'"),
    ],
)
async def test_a_list_that_cannot_be_meant_is_refused(caller, packages, language, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        await caller.executor.install_packages(
            packages, language=language, owner=caller.owner, session_id=caller.session_id
        )


async def test_the_operators_lists_hold_also_for_what_comes_along(make_settings, index):
    wheel(index, "greeting")
    wheel(index, "bringing", needs=["evil-one"])
    wheel(index, "evil-one")
    async with started(make_settings, package_deny=("Evil_*",)) as (_, _, install):
        report = await install("evil.one", "bringing", "greeting")
        assert "on the list of packages that may not" in reasons(report)["evil.one"]
        assert "it needs evil-one, which is on the list" in reasons(report)["bringing"]
        assert not report.installed  # nobody is to blame alone
    async with started(make_settings, package_allow=("greeting",)) as (_, _, install):
        report = await install("greeting", "bringing")
        assert versions(report.installed) == {"greeting": "1.0"}
        assert "not on the list of packages that may be installed here: greeting" in reasons(report)["bringing"]


async def test_limits_of_size_and_number_hold(make_settings, index):
    wheel(index, "large", files={"large.bin": os.urandom(3_000_000)})
    wheel(index, "bomb", files={"bomb.bin": bytes(300_000_000)})
    wheel(index, "small")
    wheel(index, "small2")
    async with started(make_settings, package_max_mb=2, package_max_count=1) as (executor, _, install):
        for name in ("large", "bomb"):
            report = await install(name)
            assert "at most 2 MB of packages" in reasons(report)[name]
        assert (await install("small")).success
        assert "at most 1 may be named" in reasons(await install("small2"))["small2"]
        stages = list(Path(executor.settings.work_dir, "packages").glob("stage-*"))
        assert stages == []


async def test_packages_that_do_not_fit_into_the_sessions_folder_leave_it_as_it_was(make_settings, index):
    wheel(index, "large", files={"large.bin": os.urandom(6_000_000)})
    wheel(index, "small", files={"small.py": "version = 1"})
    async with started(make_settings, session_disk_mb=4) as (executor, session_id, install):
        await install("small")
        with pytest.raises(FileRefused, match="do not fit into the session's folder, which may hold 4 MiB"):
            await install("large")
        result = await executor.execute(
            "import os, small; print(small.version, os.listdir('.packages/python') and os.listdir('.tmp'))",
            language="python",
            owner="alice",
            session_id=session_id,
        )
        assert result.success and "install-" not in result.stdout


async def test_switched_off_it_says_so(make_settings, index):
    async with started(make_settings, packages=False) as (_, _, install):
        with pytest.raises(InvalidRequest, match="switched off here"):
            await install("greeting")


async def test_a_session_that_turned_its_package_folder_into_a_link_harms_nobody(executor, caller, index, tmp_path):
    wheel(index, "greeting", "1.2")
    swapped = await caller.run("import os; os.rmdir('.packages/python'); os.symlink('/tmp', '.packages/python')")
    assert swapped.success
    before = sorted(os.listdir("/tmp"))
    assert (await install(caller, "greeting")).success
    assert "greeting.py" not in os.listdir("/tmp") and before
    assert await value(caller, "__import__('greeting').version") == "1.2"
    await caller.run("import shutil; shutil.rmtree('.packages'); os.mkfifo('.packages')")
    with pytest.raises(FileRefused, match="Code of this session has changed the folders"):
        await install(caller, "greeting")


async def test_an_index_that_cannot_be_reached_is_one_sentence_without_its_name(caller, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hushhush@127.0.0.1:9/simple")
    said = []
    report = await install(caller, "faraway", progress=said.append)
    assert reasons(report) == {"faraway": "the package index cannot be reached from the server; try again later"}
    assert "127.0.0.1" not in f"{report}{said}" and "hushhush" not in f"{report}{said}"


def clients():
    """The package clients that run below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "pip" in process.cmdline():
                found.append(process)
    return found


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)


async def test_time_runs_out_and_a_cancel_ends_it_without_a_trace(make_settings, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with hanging_host() as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        async with started(make_settings, package_timeout=6) as (executor, _, install):
            task = asyncio.create_task(install("greeting"))
            await until(clients)
            with pytest.raises(Busy, match="being installed in this session already"):
                await install("another")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not clients()
            report = await install("greeting")
            assert "not fetched within 6 s" in reasons(report)["greeting"]
            assert not clients()
            store = Path(executor.settings.work_dir, "packages")
            await until(lambda: not list(store.glob("stage-*")))


async def test_a_shutdown_ends_what_is_under_way(make_settings, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with hanging_host() as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        async with started(make_settings) as (_, _, install):
            task = asyncio.create_task(install("greeting"))
            await until(clients)
        assert not clients()
        with pytest.raises(BackendFailed, match="shutting down"):
            await task


async def test_two_fetches_at_once_and_the_third_waits(make_settings, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with hanging_host() as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        async with started(make_settings) as (executor, first, install):
            others = [(await executor.create_session(owner="alice")).id for _ in range(2)]
            tasks = [asyncio.create_task(install("a", session_id=id)) for id in (first, others[0])]
            await until(lambda: len(clients()) == 2)
            said = []
            tasks.append(asyncio.create_task(install("a", session_id=others[1], progress=said.append)))
            await until(lambda: said)
            assert said == ["Waiting for the installations of other sessions."] and len(clients()) == 2
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert not clients()


async def test_what_happened_is_published(make_settings, index):
    wheel(index, "greeting")
    async with started(make_settings) as (executor, session_id, install):
        events = []
        unsubscribe = executor.bus.subscribe(events.append)
        await install("greeting", "nosuchthing")
        unsubscribe()
        (event,) = [event for event in events if isinstance(event, PackagesInstalled)]
        assert (event.session_id, event.owner, event.language) == (session_id, "alice", "python")
        assert (event.installed, event.refused) == (1, 1) and event.size > 0 and event.seconds > 0


async def test_clients_get_the_way_to_the_index_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("ACCESS_KEY", "secret")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    job = Job(stage=tmp_path, downloads=tmp_path, deadline=0, seconds=1, max_mb=1, progress=print)
    found = environment(job, lambda name: name == "PIP_INDEX_URL")
    assert found["PIP_INDEX_URL"] == "https://index" and found["https_proxy"] == "http://proxy"
    assert not {"HF_TOKEN", "ACCESS_KEY", "PIP_TARGET", "PYTHONPATH"} & found.keys()
