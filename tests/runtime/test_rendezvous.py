"""The connections of several processes, here between threads of one."""

import queue
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from several import free_address

from research.runtime import rendezvous
from research.structs import UserError


def meet(*numbers, count=3, limit=10.0, address=None):
    """What `links.meet` gives or raises to each of the numbers, all at once."""
    address = address or free_address()

    def one(number):
        try:
            return rendezvous.meet(address, count, number, limit=limit)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(one, numbers))


@pytest.fixture
def linked(monkeypatch):
    """Three processes: their connections, `Links`, and what `act` was called with, by number."""
    monkeypatch.setattr(rendezvous, "GRACE", 0.5)
    connections, acted = meet(0, 1, 2), [queue.SimpleQueue() for _ in range(3)]
    made = [
        rendezvous.Links(found, 3, number, lambda *words, number=number: acted[number].put(words))
        for number, found in enumerate(connections)
    ]
    yield connections, made, acted
    for found in connections:
        for connection in found.values():
            connection.close()


def test_values_arrive_in_the_order_in_which_they_were_sent(linked):
    _, made, _ = linked
    for value in (1, [2, "three"], None):
        made[2].send(0, value)
    made[0].send(1, "other")
    assert [made[0].receive(2) for _ in range(3)] == [1, [2, "three"], None]
    assert made[1].receive(0) == "other"


@pytest.mark.parametrize("dead", [0, 2])
def test_a_process_that_dies_is_told_to_all_the_others_at_once(linked, dead):
    connections, made, acted = linked
    made[dead]._closed = True  # its own threads would die with it
    began = time.monotonic()
    for connection in connections[dead].values():  # as the kernel does it
        connection.shutdown(socket.SHUT_RDWR)
    for number in {0, 1, 2} - {dead}:
        assert acted[number].get(timeout=5) == (rendezvous.End(dead, "", rendezvous.DIED), False)
    assert time.monotonic() - began < rendezvous.GRACE


@pytest.mark.parametrize("which", [0, 1])
def test_the_others_have_a_while_to_come_to_the_end_of_one(linked, which):
    _, made, acted = linked
    began = time.monotonic()
    made[which].end("error: alone", 2)
    for number in range(3):
        assert acted[number].get(timeout=5) == (rendezvous.End(which, "error: alone", 2), False)
    assert time.monotonic() - began >= rendezvous.GRACE


@pytest.mark.parametrize(("texts", "same"), [("aaa", True), ("aab", False)])
def test_it_is_known_whether_all_have_come_to_the_same_end(linked, texts, same):
    _, made, acted = linked
    for one, text in zip(made, texts, strict=True):
        one.end(text, 2)
    assert [acted[number].get(timeout=5)[1] for number in range(3)] == [same] * 3


def test_after_they_have_parted_nobody_is_missed(linked):
    connections, made, acted = linked
    with ThreadPoolExecutor(3) as pool:
        _ = list(pool.map(lambda one: one.close(), made))
    for connection in (connections[1][0], connections[0][2]):
        connection.shutdown(socket.SHUT_RDWR)
    time.sleep(0.3)
    assert all(each.empty() for each in acted)


def test_the_first_can_wait_until_the_others_have_left(linked):
    connections, made, _ = linked
    began = time.monotonic()
    made[0].wait_until_left(0.2)
    assert time.monotonic() - began >= 0.2
    for number in (1, 2):
        connections[number][0].shutdown(socket.SHUT_RDWR)
    made[0].wait_until_left(5)
    assert time.monotonic() - began < 3


def test_an_address_that_is_none_or_in_use_or_not_there_is_said():
    assert "'elsewhere' is not host:port" in meet(0, address="elsewhere")[0]
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        said = meet(0, count=2, address=f"localhost:{port}")[0]
    assert said.startswith(f"coordinator: port {port} cannot be opened here (Address already in")
    said = meet(1, count=2, limit=0.5, address=f"127.0.0.1:{port}")[0]
    assert f"127.0.0.1:{port} cannot be reached within 0 s" in said and "refused" in said


def test_the_processes_that_have_not_come_are_named():
    first, second = meet(0, 2, count=4, limit=1)
    assert re.search(r"process\(es\) 1, 3 of 4 have not come to 127.0.0.1:\d+ within 1 s", first)
    assert "the first process at 127.0.0.1" in second and "has ended" in second


def test_one_that_says_another_number_or_count_is_refused_and_strangers_are_let_go():
    address = free_address()
    host, port = address.split(":")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(meet, 0, count=2, address=address)
        time.sleep(0.2)
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"another program" in stranger.recv(99)
        assert "processes: 3 here, but 2 in the first" in meet(1, address=address)[0]
        assert "process: 4 is there already, or not one" in meet(4, count=2, address=address)[0]
        (joined,) = meet(1, count=2, address=address)
        (found,) = first.result()
    assert set(found) == {1} and set(joined) == {0}
    for connection in (*found.values(), *joined.values()):
        connection.close()
