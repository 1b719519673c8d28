"""What a leader leaves behind when it dies badly is ended, and nothing of the leaders that live."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

ZYGOTE = """
import json, os, time
from executor.local.guard import kill_orphans
from executor.sandbox import kernel

kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
leader = os.fork()
if leader == 0:
    # as one that is just being made: it has had no child so far, and what it forks must live
    killed = 0
    for _ in range(500):
        child = os.fork()
        if child == 0:
            os._exit(0)
        killed += os.waitpid(child, 0)[1] != 0
    os._exit(min(killed, 100))
if os.fork() == 0:
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(60)
    os._exit(0)
while len(open("/proc/thread-self/children").read().split()) < 5:
    time.sleep(0.01)  # the three sleepers are ours now, beside the leader and who left them
while (ended := os.waitpid(leader, os.WNOHANG))[0] == 0:
    kill_orphans({leader})
print(json.dumps({"killed": os.waitstatus_to_exitcode(ended[1]), "left": open("/proc/thread-self/children").read()}))
"""


def test_orphans_end_and_what_a_living_leader_forks_meanwhile_does_not():
    done = subprocess.run([sys.executable, "-c", ZYGOTE], cwd=ROOT, capture_output=True, timeout=120, check=True)
    assert json.loads(done.stdout) == {"killed": 0, "left": ""}
