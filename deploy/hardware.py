"""What each kind of hardware costs, when it sleeps and what quota it uses, in words."""

from __future__ import annotations

PRICES = (
    "PRO is 9 USD a month, Team 20 USD a month for each user (as of September 2026, see Hugging Face's pricing page); "
    "cpu-basic itself costs nothing by the hour"
)
"""What a plan costs; the Hub tells the hourly price of hardware itself."""

_CPU_BASIC = f"""\
`cpu-basic`: 2 virtual CPUs, 16 GB of memory. It needs a paid plan ({PRICES}).
It falls asleep after 48 hours without a visit, which cannot be changed; the next request wakes it. LibreChat gives up
after about 15 seconds and then refuses for up to five minutes: run `python -m deploy wake` first, or keep it awake with
`python -m deploy wake --every 43200`."""

_ZERO = """\
`zero-a10g` (ZeroGPU): no cost. A free personal account may host two such Spaces once its mail address is verified and
it is 30 days old. ZeroGPU stops Spaces that mark no function for the GPU, so `app.py` marks one **that is never
called**: no GPU quota is used, neither yours nor that of anybody who calls. It sleeps when nobody visits, and the next
request wakes it. The project's own tests cannot try the real platform: `python -m deploy doctor` checks a live one."""

_PAID = """\
`{hardware}`: paid by the hour while it runs; `python -m deploy plan` shows the Hub's price. It never sleeps unless
`sleep_time` is set; asleep it costs nothing, and the next request wakes it."""


def about(hardware: str) -> str:
    """Price, sleep and quota of a kind of hardware, in words."""
    if hardware == "cpu-basic":
        return _CPU_BASIC
    return _ZERO if hardware.startswith("zero-") else _PAID.format(hardware=hardware)
