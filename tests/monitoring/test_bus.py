"""Bus: publishing is quick and safe, delivery is complete and in order."""

from __future__ import annotations

import asyncio
import threading
import time

from executor import events
from executor.events import Bus, during
from tests.monitoring.script import called, opened, started


def test_events_arrive_in_the_order_of_publication() -> None:
    bus, seen = Bus(), []
    end = bus.subscribe(seen.append)
    sent = [opened(session_id=str(number)) for number in range(500)]
    for event in sent:
        bus.publish(event)
    end()
    assert seen == sent


def test_events_from_many_threads_all_arrive() -> None:
    bus, seen = Bus(linger=0.001), []
    bus.subscribe(seen.append)

    def publish(who: int) -> None:
        for number in range(400):
            bus.publish(opened(session_id=f"{who}-{number}"))
            if number % 50 == 0:
                time.sleep(0.002)  # let the subscriber fall asleep now and then

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bus.flush()
    assert len({event.session_id for event in seen}) == 1600


def test_one_waking_delivers_what_gathered() -> None:
    bus, at = Bus(linger=0.5), []
    bus.subscribe(lambda event: at.append(time.monotonic()))
    began = time.monotonic()
    for number in range(20):
        bus.publish(opened(session_id=str(number)))
    assert bus.flush(timeout=15)
    assert len(at) == 20
    assert at[0] - began > 0.4, "it lets them gather"
    assert at[-1] - at[0] < 5, "a waking for each would take 9.5 s"


def test_a_subscriber_that_raises_hears_the_next_event_and_is_counted() -> None:
    bus, seen = Bus(linger=0), []

    def fragile(event: events.Event) -> None:
        seen.append(event)
        if len(seen) == 1:
            raise ValueError("broken")

    bus.subscribe(fragile)
    bus.publish(opened())
    bus.publish(opened())
    assert bus.flush()
    assert (len(seen), bus.failed) == (2, 1)


def test_a_subscriber_that_hangs_neither_delays_publishing_nor_others_and_its_loss_is_counted() -> None:
    bus, seen, hold = Bus(capacity=10, linger=0), [], threading.Event()
    bus.subscribe(lambda event: hold.wait(30))
    bus.subscribe(seen.append)
    began = time.monotonic()
    for number in range(1, 101):
        bus.publish(opened())
        # the one that does not hang is given the time to keep up, and the other none
        while len(seen) < number - 4 and time.monotonic() < began + 4:
            time.sleep(0.001)
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 5
    while len(seen) < 90 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(seen) >= 90
    assert bus.dropped >= 89
    hold.set()


def test_ending_a_subscription_delivers_what_waits_and_is_idempotent() -> None:
    bus, seen = Bus(linger=10), []
    end = bus.subscribe(seen.append)
    bus.publish(opened())
    began = time.monotonic()
    end()
    end()
    assert len(seen) == 1
    assert time.monotonic() - began < 5, "the gathering was not cut short"
    bus.publish(opened())
    assert len(seen) == 1


def test_a_subscriber_may_end_its_own_subscription() -> None:
    bus, seen = Bus(linger=0), []

    def once(event: events.Event) -> None:
        seen.append(event)
        end()

    end = bus.subscribe(once)
    bus.publish(opened())
    bus.flush(timeout=1)
    bus.publish(opened())
    time.sleep(0.05)
    assert len(seen) == 1


def test_flush_gives_up_at_its_deadline() -> None:
    bus, hold = Bus(linger=0), threading.Event()
    bus.subscribe(lambda event: hold.wait(30))
    bus.publish(opened())
    assert not bus.flush(timeout=0.1)
    hold.set()


async def test_events_of_tasks_started_within_a_call_carry_its_id() -> None:
    made: list[events.Event] = []

    async def work() -> None:
        await asyncio.sleep(0)
        made.append(started(1))

    with during("request-7", "execute_python_code"):
        task = asyncio.create_task(work())
    outside = started(2)
    await task
    assert (made[0].request_id, made[0].tool) == ("request-7", "execute_python_code")
    assert (outside.request_id, outside.tool) == ("", "")
    assert called(request_id="named").request_id == "named"
