"""Arenas that live as long as the tests need them, and a session to try things in."""

import pytest

from tests.sandbox.arena import Arena


@pytest.fixture(scope="session")
def arenas():
    """A running arena by the name of its place."""
    running = {}

    def arena(place):
        if place not in running:
            # one at a time: tests are ordered by place
            for other in running.values():
                other.close()
            running.clear()
            running[place] = Arena(place)
        return running[place]

    yield arena
    for other in running.values():
        other.close()
