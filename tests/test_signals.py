import signal

import pytest

from pipeline.commands.signals import Interrupted, safe_point


def test_before_the_first_safe_point_a_signal_ends_at_once():
    with pytest.raises(Interrupted), safe_point():
        signal.raise_signal(signal.SIGINT)


def test_later_a_signal_waits_for_the_next_safe_point():
    with safe_point() as point:
        point()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            point()
    assert caught.value.exit_code == 143


def test_a_second_signal_ends_at_once():
    with safe_point() as point:
        point()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == 130


def test_the_handlers_of_before_are_back_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with safe_point():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
