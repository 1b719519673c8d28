"""No attack gets out of a session, at any level that this machine can form, nor in a pod like a Space's."""

import pytest

from tests.sandbox.arena import LEVELS, attacks, missing, places, unformed

WEAK = {"network", "kernel", "survival", "protocol"}
"""What `weak` promises to hold where seccomp works; beside that signals, and the limits named here."""
WEAK_ONE_BY_ONE = (
    *("kill-", "stop-victim", "starve-victim"),
    *("fork-bomb", "thread-bomb", "disk-fallocate", "huge-file", "many-files", "raise-limits", "first-in-line"),
)
WEAK_NOT = {
    "undumpable",  # workers are hidden there anyway, as nothing else keeps them from each other
    "devices",  # files are not held there, and a terminal is one that everybody may open
    "terminal-input",
}


def promised(place, attack):
    """Whether a place promises to hold an attack."""
    if place != "weak":
        return True
    return attack.id not in WEAK_NOT and (attack.category in WEAK or attack.id.startswith(WEAK_ONE_BY_ONE))


def ours_refuses(place, attack):
    """Whether it must show in a place that a layer of ours refused an attack, and not only the host."""
    if attack.held == "said":
        # the files of `/proc` are not held there: what may be written is what another user than the server may
        return (place, attack.id) != ("weak", "sysctl-by-file")
    # the pod's own profile refuses before our filter asks anybody, so that nothing is counted
    return attack.held != "" and place != "pod"


CASES = [
    case
    for place in LEVELS
    for case in (
        [unformed(place, None)]
        if missing(place)
        else [(place, attack) for attack in attacks() if promised(place, attack)]
    )
]


@pytest.mark.parametrize(("place", "attack"), CASES, ids=lambda value: getattr(value, "id", value))
def test_an_attack_is_held(arenas, place, attack):
    outcome = arenas(place).attack(attack)
    assert not str(outcome.status).startswith("failed"), outcome.status
    assert not outcome.escapes, f"{attack.tries}: {outcome.escapes}\n{outcome.text[-2000:]}"
    if ours_refuses(place, attack):
        assert attack.held in outcome.held, f"{attack.tries}: not by ours: {outcome.held}\n{outcome.text[-2000:]}"


@pytest.mark.parametrize("place", places())
def test_a_session_works_where_the_attacks_were_held(arenas, place):
    arena = arenas(place)
    for language, code in (
        ("python", "print(40 + 2)"),
        ("bash", "echo $((40 + 2))"),
        ("javascript", "console.log(42)"),
    ):
        assert "42" in arena.run(language, code).text


@pytest.mark.parametrize("place", places())
def test_a_place_has_the_level_that_it_claims(arenas, place):
    arena = arenas(place)
    arena.start()
    assert arena.facts["level"] == LEVELS[place]


def test_there_are_at_least_120_attacks_in_three_languages_with_ids_of_their_own():
    found = attacks()
    assert len(found) >= 120
    assert len({attack.id for attack in found}) == len(found)
    assert {attack.language for attack in found} == {"python", "javascript", "bash"}
