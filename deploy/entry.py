"""The Space's `app.py`: the very same app as `make run`, working run and imported, with what ZeroGPU asks for."""

from __future__ import annotations

_ENTRY = '''\
"""Entry of the Space: the same app as on any other machine. Made by `python -m deploy`, which overwrites changes."""

{zero}from space.app import demo, main

__all__ = ["demo"]

if __name__ == "__main__":
    main()
'''

_ZERO = '''\
import spaces


@spaces.GPU(duration=1)
def never_called() -> None:
    """ZeroGPU stops a Space that marks no function for the GPU. Nothing here needs one: no quota is ever used."""


'''


def entry(*, zero_gpu: bool) -> str:
    """The text of `app.py`."""
    return _ENTRY.format(zero=_ZERO if zero_gpu else "")
