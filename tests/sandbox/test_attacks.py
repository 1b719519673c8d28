"""No attack gets out of a session, at any level that this machine can form, nor in a pod like a Space's."""

import pytest

from tests.sandbox.arena import attacks, places

CASES = [(place, attack) for place in places() for attack in attacks()]


@pytest.mark.parametrize(("place", "attack"), CASES, ids=lambda value: getattr(value, "id", value))
def test_an_attack_is_held(arenas, place, attack):
    outcome = arenas(place).attack(attack)
    assert not str(outcome.status).startswith("failed"), outcome.status
    assert not outcome.escapes, f"{attack.tries}: {outcome.escapes}\n{outcome.text[-2000:]}"


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
    assert arena.facts["level"] == ("full" if place == "full" else "strong")


def test_there_are_at_least_120_attacks_in_three_languages_with_ids_of_their_own():
    found = attacks()
    assert len(found) >= 120
    assert len({attack.id for attack in found}) == len(found)
    assert {attack.language for attack in found} == {"python", "javascript", "bash"}
