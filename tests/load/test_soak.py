"""The soak's figures: samples of processes, and their growth."""

import os

from tests.load.soak import memory, slopes


def test_slopes_are_those_of_the_second_half_in_an_hour() -> None:
    """A figure that grows at first and is constant later has no slope; a steady growth is multiplied to an hour."""
    worker = [1.0, 50.0, 90.0, 99.0, 99.0, 99.0, 99.0, 99.0]
    samples = [
        {"minute": minute, "worker.rss": rss, "database": minute * 0.5, "calls": minute}
        for minute, rss in enumerate(worker, 1)
    ]
    assert {"worker.rss": 0.0, "database": 30.0} == slopes(samples)


def test_a_new_descriptor_is_counted() -> None:
    """The sample of a process counts its descriptors and threads."""
    before = memory(os.getpid())
    new = os.open(os.devnull, os.O_RDONLY)
    after = memory(os.getpid())
    os.close(new)
    assert 1 == after["descriptors"] - before["descriptors"]
    assert after["threads"] >= 1
    assert after["rss"] > 1
