"""The probe tells the truth about a host, layer by layer."""

import json
import os
import subprocess
import sys

import pytest

from executor.errors import SettingsError
from executor.sandbox.confinement import Layers, Sandbox
from executor.sandbox.probe import probe
from executor.sandbox.report import SandboxReport
from tests.sandbox.arena import ROOT
from tests.sandbox.confined import LIMITS


def report_of(layers, state):
    """The report, from a child: preparing changes the process that does it."""
    state.chmod(0o711)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # as in the zygote, which is exec'd: what the tests hold open is not there
        os.closerange(3, writer)
        os.closerange(writer + 1, 1 << 16)
        sandbox = Sandbox.prepare(LIMITS, state=str(state), layers=layers)
        os.write(writer, json.dumps(probe(sandbox, state=str(state)).to_json()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    return SandboxReport.from_json(json.loads(text))


@pytest.mark.parametrize(
    ("layers", "level", "off"),
    [
        (Layers(namespaces=False), "strong", {"namespaces"}),
        (Layers(namespaces=False, landlock_abi=1), "strong", {"namespaces"}),
        (Layers(namespaces=False, landlock=False), "weak", {"namespaces", "files"}),
        (Layers(namespaces=False, notifier=False), "weak", {"namespaces", "forks"}),
        (Layers(namespaces=False, filter=False), "weak", {"namespaces", "system_calls", "network", "forks", "modes"}),
    ],
)
def test_a_layer_that_is_off_is_reported_and_lowers_the_level(tmp_path, layers, level, off):
    report = report_of(layers, tmp_path)
    assert report.level == level, report.missing()
    assert off <= {name for name, layer in report.layers.items() if not layer.on}


def test_this_machine_reaches_the_level_that_its_layers_allow(tmp_path):
    report = report_of(Layers(), tmp_path)
    assert report.level == ("full" if report.layers["namespaces"].on else "strong"), report.missing()
    assert all(layer.why.endswith(".") for layer in report.layers.values())


def test_a_state_folder_that_guests_could_read_stops_the_start(tmp_path):
    with pytest.raises(SettingsError, match="WORK_DIR"):
        Sandbox.prepare(LIMITS, state=str(tmp_path / "state"), extra=[str(tmp_path)])


def test_the_table_can_be_printed_on_a_new_host():
    run = subprocess.run(
        [sys.executable, "-m", "executor.sandbox.probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.startswith("level: ")
    assert "files" in run.stdout and "namespaces" in run.stdout
