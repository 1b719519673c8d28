"""The attacks are real: where nothing protects they bite, or the host refuses them to everybody, with its evidence."""

import errno
import os

import pytest

from tests.sandbox.arena import attacks, missing, unformed

CASES = [unformed("bare")] if missing("bare") else attacks()
LEADERS = {"protocol", "collection"}
"""Attacks on a leader: that the careless one broke counts for these only."""


def bites(attack, escapes):
    """Whether it succeeded in the way that it says."""
    if attack.shows == "harm":
        return any(
            escape.startswith("harm") and ("leader:" not in escape or attack.category in LEADERS) for escape in escapes
        )
    return attack.shows in escapes


@pytest.mark.parametrize("attack", CASES, ids=lambda attack: getattr(attack, "id", attack))
def test_an_attack_bites_where_nothing_protects_or_the_host_itself_refuses_it(arenas, attack):
    outcome = arenas("bare").attack(attack)
    evidence = [name for name in attack.refused if os.strerror(getattr(errno, name)) in outcome.text]
    assert bites(attack, outcome.escapes) or evidence, (
        f"{attack.id} neither bites nor is refused: {outcome.escapes} {outcome.text[-2000:]}"
    )

    assert attack.held not in outcome.held, "what shows that ours refuses it shows where nothing of ours is"


@pytest.mark.parametrize("place", ["bare"] if not missing("bare") else [unformed("bare")])
@pytest.mark.parametrize(
    ("language", "code"), [("python", "print(42)"), ("bash", "echo 42"), ("javascript", "console.log(42)")]
)
def test_the_careless_leader_serves_honest_code(arenas, place, language, code):
    outcome = arenas(place).run(language, code)
    assert "42" in outcome.text and not outcome.escapes


def test_an_attack_that_a_host_may_refuse_shows_what_ours_does():
    # a kernel that lacks these two calls says just what our filter says; test_seccomp asks for every number
    alike = {"modify-ldt", "memfd-secret"}
    assert {attack.id for attack in attacks() if attack.refused and not attack.held} == alike


def test_at_least_120_attacks_can_bite_and_few_need_the_word_of_the_host():
    found = attacks()
    assert len([attack for attack in found if not attack.refused]) >= 120
    assert all(hasattr(errno, name) for attack in found for name in attack.refused)
