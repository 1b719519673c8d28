"""The attacks are real: where nothing protects they bite, or the host itself refuses and we say why."""

import os

import pytest

from tests.sandbox.arena import attacks

CASES = attacks() if os.geteuid() == 0 else []


@pytest.mark.parametrize("attack", CASES, ids=lambda attack: attack.id)
def test_an_attack_bites_where_nothing_protects(arenas, attack):
    outcome = arenas("bare").attack(attack)
    if attack.bare:
        return  # the host may refuse: the sentence in the data says why, the text says how
    assert outcome.escapes, f"{attack.id} does not bite: {outcome.text[-2000:]}"
