from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from glmlab.interrupt import StopOnInterrupt

SENDERS = {
    "os.kill": lambda: os.kill(os.getpid(), signal.SIGINT),
    "raise_signal": lambda: signal.raise_signal(signal.SIGINT),
}


@pytest.fixture(params=SENDERS)
def interrupt(request):
    return SENDERS[request.param]


def test_the_first_interrupt_is_a_wish_that_is_told_once(interrupt):
    told = []
    with StopOnInterrupt(lambda: told.append("stopping")) as wish:
        before = wish.wanted
        interrupt()
        assert (before, wish.wanted) == (False, True)
    assert told == ["stopping"]


def test_the_second_interrupt_stops_at_once(interrupt):
    with StopOnInterrupt(lambda: None) as wish:
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert wish.wanted


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_the_former_handler_is_back_however_the_block_ends(error):
    former = signal.getsignal(signal.SIGINT)

    with contextlib.suppress(KeyboardInterrupt, ValueError), StopOnInterrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not former
        if error:
            raise error
    assert signal.getsignal(signal.SIGINT) is former


def test_blocks_may_be_nested_and_the_inner_one_hears_first(interrupt):
    with StopOnInterrupt(lambda: None) as outer:
        with StopOnInterrupt(lambda: None) as inner:
            interrupt()
        assert (outer.wanted, inner.wanted) == (False, True)
        interrupt()
        assert outer.wanted


def test_in_another_thread_it_leaves_signals_alone():
    former, errors = signal.getsignal(signal.SIGINT), []

    def work():
        try:
            with StopOnInterrupt(lambda: None) as wish:
                assert not wish.wanted
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert signal.getsignal(signal.SIGINT) is former
