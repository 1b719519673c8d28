"""The attacks are real: where nothing protects they bite, or the data says why they cannot on such a host."""

import os

import pytest

from tests.sandbox.arena import attacks

CASES = attacks() if os.geteuid() == 0 else []
BROKEN = ("SyntaxError", "NameError", "TypeError", "AttributeError", "syntax error", "ReferenceError")


@pytest.mark.parametrize("attack", [a for a in CASES if not a.bare], ids=lambda attack: attack.id)
def test_an_attack_bites_where_nothing_protects(arenas, attack):
    outcome = arenas("bare").attack(attack)
    assert outcome.escapes, f"{attack.id} does not bite: {outcome.text[-2000:]}"


@pytest.mark.parametrize("attack", [a for a in CASES if a.bare], ids=lambda attack: attack.id)
def test_an_attack_that_the_host_refuses_is_at_least_sound(arenas, attack):
    outcome = arenas("bare").attack(attack)
    assert outcome.escapes or not any(word in outcome.text for word in BROKEN), outcome.text[-2000:]
