"""What can go wrong while deploying, each as one sentence with the next step, and the exit code that scripts see."""

from __future__ import annotations

from enum import IntEnum

import httpx2
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from deploy.hardware import PRICES
from deploy.retries import conflicting


class Exit(IntEnum):
    """Exit codes of `python -m deploy`; `doctor` uses those from 20 on, one for each thing that it can find."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TOKEN = 3
    PLAN = 4
    NAME = 5
    BUILD = 6
    TIMEOUT = 7
    SMOKE = 8
    HUB = 9
    SLEEPING = 20
    BUILDING = 21
    WRONG_TOKEN = 22
    WRONG_PLAN = 23
    OLD_BUILD = 24
    WEAK_SANDBOX = 25
    PAUSED = 26
    MISSING = 27
    PUBLIC = 28
    INTERRUPTED = 130


class DeployError(Exception):
    """Deploying cannot go on; the text says what happened and what to do next."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(sentence)
        self.code = code


def payment_required(hardware: str, server: str = "") -> DeployError:
    """The Hub wants a plan for this hardware: both ways out, the free one included."""
    said = f" Hugging Face said: {server}" if server else ""
    if hardware.startswith("zero-"):
        return DeployError(
            "Hugging Face refused a ZeroGPU Space (402). A free personal account may host two of them once its mail "
            "address is verified and it is 30 days old; an organisation needs a Team plan. Verify the address, delete "
            f"a ZeroGPU Space that you no longer use, or subscribe ({PRICES}), then run apply again.{said}",
            Exit.PLAN,
        )
    return DeployError(
        f"Hugging Face wants a paid plan for a Space on {hardware} (402). Two ways out: subscribe to PRO and run apply "
        f"again ({PRICES}); or take the free one, `--hardware zero-a10g`: a free personal account may host two ZeroGPU "
        f"Spaces, and we use no GPU quota there.{said}",
        Exit.PLAN,
    )


def explain(error: Exception, *, doing: str, space: str = "", hardware: str = "") -> DeployError:
    """The sentence for `error`, which came up while `doing` (a phrase that completes "while")."""
    if isinstance(error, DeployError):
        return error
    if isinstance(error, LocalTokenNotFoundError):
        return DeployError(
            f"No token while {doing}: set HF_TOKEN to a token that may write, or run `hf auth login`.", Exit.TOKEN
        )
    if isinstance(error, HfHubHTTPError):
        return _status(error, doing, space, hardware)
    if isinstance(error, httpx2.TimeoutException):
        return DeployError(
            f"Hugging Face did not answer in time while {doing}. Check the connection and its status page, then run "
            "the same command again: it goes on where this one stopped.",
            Exit.TIMEOUT,
        )
    if isinstance(error, httpx2.HTTPError):
        return DeployError(
            f"The connection to Hugging Face broke while {doing} ({type(error).__name__}). Check the network and any "
            "proxy, then run the same command again: it goes on where this one stopped.",
            Exit.HUB,
        )
    if isinstance(error, (ValueError, KeyError, TypeError)):
        return DeployError(
            f"Hugging Face's answer could not be used while {doing}: {error}. If a proxy sits in between, go round it; "
            "if not, look at the Space in the browser and run the command again.",
            Exit.HUB,
        )
    return DeployError(f"{type(error).__name__} while {doing}: {error}. Please report this.", Exit.FAILED)


def _status(error: HfHubHTTPError, doing: str, space: str, hardware: str) -> DeployError:
    status = error.response.status_code
    said = f" Hugging Face said: {error.server_message}" if error.server_message else ""
    the_space = f"the Space {space}" if space else "the Space"
    match status:
        case 401:
            return DeployError(
                f"Hugging Face does not accept the token (401) while {doing}. Make a new one with write access in "
                f"your account's token settings, set HF_TOKEN, and run apply again.{said}",
                Exit.TOKEN,
            )
        case 402:
            return payment_required(hardware or "this hardware", error.server_message or "")
        case 403:
            return DeployError(
                f"The token may not do this (403) while {doing}. Use one with write access to {the_space}; in an "
                f"organisation you need the role `write` or above there: ask an admin, or deploy to your own account "
                f"with `--space name`.{said}",
                Exit.TOKEN,
            )
        case 404:
            return DeployError(
                f"Hugging Face does not know {the_space} (404) while {doing}. Check owner and name, and that the token "
                f"may see it; a Space that somebody deleted meanwhile is made again by the next apply.{said}",
                Exit.NAME,
            )
        case 409 if conflicting(error):
            return DeployError(
                f"Hugging Face is still busy with another change of this account (409) while {doing}. Wait a minute, "
                f"then run the same command again.{said}",
                Exit.HUB,
            )
        case 409:
            return DeployError(
                f"Something else changed {the_space} at the same moment, or the name is taken (409) while {doing}. "
                f"Look at it in the browser, choose another name with `--space` or run apply again.{said}",
                Exit.NAME,
            )
        case 412:
            return DeployError(
                f"Somebody committed to {the_space} at the same moment (412) while {doing}. Run plan to see what, "
                f"then apply again.{said}",
                Exit.NAME,
            )
        case 429:
            wait = error.response.headers.get("retry-after")
            return DeployError(
                f"Hugging Face asks for fewer requests (429) while {doing}. Wait "
                f"{wait + ' seconds' if wait else 'a few minutes'} and run the same command again.{said}",
                Exit.HUB,
            )
        case _ if status >= 500:
            return DeployError(
                f"Hugging Face has a fault of its own ({status}) while {doing}, and had it again on each retry. See "
                f"its status page, then run the same command again: it goes on where this one stopped.{said}",
                Exit.HUB,
            )
        case _:
            return DeployError(
                f"Hugging Face refused ({status}) while {doing}.{said or ' It gave no reason.'} Correct that and run "
                "the same command again.",
                Exit.HUB,
            )
