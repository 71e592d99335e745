import contextlib
import os
import signal
import threading
import time

import pytest
from several import Several

from research.runtime import preemption
from runtime.test_distributed import START


@pytest.fixture(autouse=True)
def left(monkeypatch):
    """The exit codes by which the thread that watches has left the process."""
    codes = set()
    monkeypatch.setattr(preemption.os, "_exit", codes.add)
    monkeypatch.setattr(preemption, "PATIENCE", 0.2)
    before = {signum: signal.getsignal(signum) for signum in preemption.SIGNALS}
    state, threads = dict(preemption._state), set(threading.enumerate())
    preemption._state.update(dict.fromkeys(state, 0))
    preemption.install("nothing is lost")
    (watch,) = set(threading.enumerate()) - threads
    yield codes
    os.close(signal.set_wakeup_fd(-1))  # ends the thread that watches
    watch.join()  # while it cannot end this process
    preemption._state.update(state)
    for signum, handler in before.items():
        _ = signal.signal(signum, handler)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_process_at_once_where_nothing_is_deferred(
    signum, code, left, monkeypatch, capsys
):
    monkeypatch.setattr(preemption, "PATIENCE", 60)
    os.kill(os.getpid(), signum)
    time.sleep(0.2)
    words = f"stopped by {signal.Signals(signum).name}; nothing is lost\n"
    assert left == {code} and capsys.readouterr().err.endswith(words)


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


def test_a_signal_that_the_main_thread_does_not_answer_ends_the_process(left, capsys):
    with contextlib.suppress(preemption.Stopped), preemption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.6)  # as it would in a long call of a library
    assert left == {143} and "stopped by SIGTERM; nothing is lost\n" in capsys.readouterr().err


def test_what_is_not_saved_yet_is_waited_for(left):
    with contextlib.suppress(preemption.Stopped), preemption.deferred():
        preemption.mark_unsaved()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.6)
    assert not left


def test_a_second_signal_ends_the_process_at_once(left, monkeypatch):
    monkeypatch.setattr(preemption, "TOGETHER", 0.1)
    with contextlib.suppress(preemption.Stopped), preemption.deferred():
        preemption.mark_unsaved()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
    assert left == {143}


def test_two_signals_at_once_are_one_stop(left):
    first, second = preemption.SIGNALS
    with pytest.raises(preemption.Stopped, match=first.name), preemption.deferred():
        preemption.mark_unsaved()
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
        time.sleep(0.2)
    assert not left


def test_a_signal_that_comes_when_another_process_has_stopped_this_one_cuts_nothing(
    left, monkeypatch
):
    """A launcher signals one after the other; meanwhile the last state is being written."""
    monkeypatch.setattr(
        preemption.distributed, "max_over_processes", lambda received: signal.SIGTERM
    )
    with pytest.raises(preemption.Stopped) as caught, preemption.deferred():
        preemption.raise_if_requested()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    assert caught.value.exit_code == 143 and not left


EPOCHS = """
preemption.install()
distributed.barrier("begin")
try:
    with preemption.deferred():
        for epoch in range(1000):
            time.sleep(0.01 * (1 + 3 * me))  # not all are equally fast
            print("epoch", epoch, file=sys.stderr, flush=True)
            preemption.raise_if_requested()
except preemption.Stopped as stopped:
    print(epoch, stopped)
    distributed.end(stopped.exit_code)
"""


@pytest.mark.slow
def test_a_signal_to_one_of_several_stops_all_after_the_same_epoch():
    with Several(2, ("-c", START + EPOCHS)) as several:
        several.wait_until(lambda: "epoch 3" in several.said(0))
        several.send(1, signal.SIGTERM)
        one, two = several.finish()
    assert one.code == two.code == 143, one.err + two.err
    assert one.out == two.out and one.out.endswith(" stopped by SIGTERM\n")
