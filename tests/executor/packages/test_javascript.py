"""JavaScript packages in real sessions, by the real npm, from a registry of our own."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def install(caller, *packages, **kwargs):
    return await caller.executor.install_packages(
        list(packages), language="javascript", owner=caller.owner, session_id=caller.session_id, **kwargs
    )


def reasons(report):
    return {refusal.request: refusal.reason for refusal in report.refused}


async def printed(caller, code):
    result = await caller.run(code, "javascript")
    assert result.success, result
    return result.stdout.strip()


async def test_a_package_can_be_required_and_imported_at_once_although_that_failed_before(caller, registry):
    registry.add("js-greeting", dependencies={"js-helping": "^2.0.0"})
    registry.add("js-helping", "2.1.0")
    registry.add("@scope/js-own", files={"index.mjs": "export const own = 7;"}, main="index.mjs")
    failed = await caller.run("require('js-greeting')", "javascript")
    assert not failed.success
    report = await install(caller, "js-greeting", "@scope/js-own@1")
    assert report.success
    found = {(package.name, package.version, package.requested) for package in report.installed}
    assert found == {
        ("js-greeting", "1.0.0", True),
        ("js-helping", "2.1.0", False),
        ("@scope/js-own", "1.0.0", True),
    }
    assert await printed(caller, "console.log(require('js-greeting'), require('js-helping'))") == "1.0.0 2.1.0"
    assert await printed(caller, "import {own} from '@scope/js-own'; console.log(own)") == "7"


async def test_no_script_of_a_package_runs(caller, registry, tmp_path):
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), f"touch {tmp_path}/ran")
    registry.add("js-scripted", scripts=scripts, bin={"js-scripted": "index.js"})
    assert (await install(caller, "js-scripted")).success
    assert not (tmp_path / "ran").exists()


async def test_what_cannot_be_had_is_named_and_the_rest_is_installed(caller, registry):
    registry.add("js-plain")
    report = await install(caller, "js-plain", "js-nosuchthing", "js-plain@9", "../x", "js-plain@npm:other")
    assert reasons(report)["js-nosuchthing"] == "there is no package of that name; check the spelling"
    assert "named twice" in reasons(report)["js-plain@9"]
    assert "only names and versions" in reasons(report)["../x"]
    assert "only names and versions" in reasons(report)["js-plain@npm:other"]
    assert [package.name for package in report.installed] == ["js-plain"]
    assert reasons(await install(caller, "js-plain@9")) == {"js-plain@9": "there is no such version of it"}


@pytest.mark.parametrize(
    "elsewhere",
    ["git+https://127.0.0.1:9/x.git", "http://127.0.0.1:9/x.tgz", "file:../../x", "github:user/repo"],
)
async def test_what_a_package_needs_from_elsewhere_is_not_fetched(caller, registry, elsewhere):
    name = f"js-needing-{abs(hash(elsewhere))}"
    registry.add(name, dependencies={"js-elsewhere": elsewhere})
    report = await install(caller, name)
    assert not report.installed
    assert "lies outside of the package registry" in reasons(report)[name]


async def test_another_version_replaces_the_former_one_and_says_how_to_get_it(caller, registry):
    registry.add("js-changing", "1.0.0")
    registry.add("js-changing", "2.0.0")
    await install(caller, "js-changing@1")
    assert await printed(caller, "console.log(require('js-changing'))") == "1.0.0"
    report = await install(caller, "js-changing@2")
    assert [package.replaced for package in report.installed] == ["1.0.0"]
    assert any("`process.exit()`" in notice for notice in report.notices)
    await caller.run("process.exit()", "javascript")
    assert await printed(caller, "console.log(require('js-changing'))") == "2.0.0"


async def test_a_package_in_two_versions_at_once_is_not_taken_for_replaced(caller, registry):
    for version in ("1.0.0", "2.0.0"):
        registry.add("js-twice", version)
        name = f"js-needs-{version[0]}"
        registry.add(
            name, files={"index.js": "module.exports = require('js-twice')"}, dependencies={"js-twice": version}
        )
    registry.add("js-third")
    await install(caller, "js-needs-1", "js-needs-2")
    report = await install(caller, "js-third")
    assert [(package.name, package.replaced) for package in report.installed] == [("js-third", None)]
    assert report.notices == ()
    assert await printed(caller, "console.log(require('js-needs-1'), require('js-needs-2'))") == "1.0.0 2.0.0"


async def test_a_registry_that_cannot_be_reached_is_one_sentence_without_its_name(caller, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    report = await install(caller, "js-faraway")
    assert reasons(report) == {"js-faraway": "the package registry cannot be reached from the server; try again later"}


async def test_the_package_folder_holds_no_links_and_nothing_beside_it_is_touched(caller, registry):
    registry.add("js-tool", bin={"js-tool": "index.js"})
    await install(caller, "js-tool")
    listed = await caller.run("ls -A .packages/node .packages/node/node_modules; find .packages -type l", "bash")
    assert listed.stdout.split() == [
        *(".packages/node:", "node_modules", ".packages/node/node_modules:", ".package-lock.json", "js-tool"),
    ]
