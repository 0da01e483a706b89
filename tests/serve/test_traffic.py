"""The count of running requests, and how the end of the server waits for them."""

from contextlib import ExitStack

from serve.app import traffic


def test_a_request_let_in_at_the_moment_of_draining_is_waited_for(monkeypatch):
    """Admission looks, and then counts: on another thread, the server may be asked to end in between."""
    busy, slept = traffic.Traffic(), []

    def sleep(_):
        slept.append(busy.running)
        if len(slept) == 1:
            assert busy.is_draining
            request.enter_context(busy.one())
        if len(slept) == 4:
            request.close()

    monkeypatch.setattr(traffic.time, "sleep", sleep)
    with ExitStack() as request:
        assert busy.drain(60) == 0
    assert slept == [0, 1, 1, 1]


def test_what_still_runs_when_time_is_up():
    busy = traffic.Traffic()
    with busy.one(), busy.one():
        assert busy.drain(0) == 2
    assert busy.running == 0
