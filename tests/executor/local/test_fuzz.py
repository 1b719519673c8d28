"""No frame, however wrong, crashes or hangs the server's end of a leader's line."""

from tests.executor.local.fuzzing import fuzz


async def test_wrong_frames_end_the_connection_and_nothing_else():
    frames, connections, _ = await fuzz(30_000)
    assert frames == 30_000
    assert connections > 1_000
