import contextlib
import os
import signal

import pytest

from research import preemption


@pytest.fixture(autouse=True)
def handlers():
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    preemption._state.update(received=0, deferred=False)
    preemption.install()
    yield
    preemption._state.update(received=0, deferred=False)
    for signum, handler in before.items():
        _ = signal.signal(signum, handler)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_once_where_nothing_is_deferred(signum, code):
    with pytest.raises(preemption.Stopped) as caught:
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code


def test_a_deferred_signal_waits_until_it_is_asked_for():
    done = []
    with pytest.raises(preemption.Stopped, match="SIGTERM"), preemption.deferred():
        preemption.raise_if_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("work")
        preemption.raise_if_requested()
        done.append("more work")
    assert done == ["work"]


def test_a_signal_that_nobody_asks_for_stops_at_the_end_of_the_deferral():
    done = []
    with pytest.raises(preemption.Stopped), preemption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("work")
    assert done == ["work"]


def test_a_deferral_inside_another_does_not_end_it():
    done = []
    with pytest.raises(preemption.Stopped), preemption.deferred():
        with preemption.deferred():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("work")
    assert done == ["work"]


def test_a_second_signal_meets_the_default_of_the_system():
    with contextlib.suppress(preemption.Stopped), preemption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
