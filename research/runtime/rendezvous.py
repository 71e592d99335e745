"""Connections between the processes of one run: who is there, who has ended, and short messages.

The first process has a connection to every other one.  The kernel closes them when a process dies,
however it dies, so that the others hear of it at once; of a machine that is cut off they hear after
`SILENCE`.  JAX's own service hears later, and then aborts with a stack trace.

A line of JSON is a message.  The connections are made at the address at which JAX's service opens
afterwards (`jax.distributed`), so that no other port has to be free or let through.
"""

import contextlib
import dataclasses
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from research.structs import UserError

SILENCE = 30  # seconds without an answer of a machine after which its process counts as dead
GRACE = 10.0  # seconds that the others have to come to the same end as a process that has ended
_RETRY = 0.2  # seconds between two attempts to connect
_SAY_HELLO = 5  # seconds that a new connection has to say which process it is

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class End:
    """How a process has ended: its number, what it said last ("" if it died), its exit code."""

    number: int
    text: str
    code: int


DIED = 75  # EX_TEMPFAIL: start it again


def meet(address: str, count: int, number: int, *, limit: float) -> dict[int, socket.socket]:
    """Wait until all processes are there: {number: connection} to the others that this one has.

    address: "host:port" of the first process.  limit: seconds.  Raises UserError if the address
    cannot be used or reached, if processes are missing, or if two say that they are the same one.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"coordinator: {address!r} is not host:port of the first process")
    host, deadline = host.strip("[]"), time.monotonic() + limit
    if number:
        return {0: _join((host, int(port)), count, number, limit, deadline)}
    try:
        with _listen(int(port)) as listener:
            return _gather(listener, address, count, limit, deadline)
    except OSError as error:
        raise UserError(
            f"coordinator: port {port} cannot be opened here ({error.strerror}); give another one"
        ) from error


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _gather(
    listener: socket.socket, address: str, count: int, limit: float, deadline: float
) -> dict[int, socket.socket]:
    """The first process: one connection from every other."""
    found: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened:  # closed again if some are missing
        while len(found) < count - 1:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection = opened.enter_context(listener.accept()[0])
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, count) if i not in found)
                raise UserError(
                    f"coordinator: process(es) {missing} of {count} have not come to {address} "
                    f"within {limit:.0f} s"
                ) from None
            connection.settimeout(_SAY_HELLO)
            hello = _read_line(connection)
            refusal = _refusal(hello, count, found)
            if not refusal:
                found[hello["process"]] = connection
                continue
            _write_line(connection, {"refused": refusal})
            connection.close()
        for connection in found.values():
            _write_line(connection, {"refused": ""})
            _keep_alive(connection)
        _ = opened.pop_all()
    return found


def _refusal(hello: Message, count: int, found: Container[int]) -> str:
    """What is wrong with a process that says `hello`, or ""."""
    if hello.get("hello") != "research":
        return "this is the port of another program"
    if hello["processes"] != count:
        return f"processes: {hello['processes']} here, but {count} in the first process"
    if hello["process"] in found or not 0 < hello["process"] < count:
        return f"process: {hello['process']} is there already, or not one of 0 .. {count - 1}"
    return ""


def _join(
    place: tuple[str, int], count: int, number: int, limit: float, deadline: float
) -> socket.socket:
    """Another process: a connection to the first."""
    name = f"{place[0]}:{place[1]}"
    while True:
        try:
            connection = socket.create_connection(place, max(0.1, deadline - time.monotonic()))
            break
        except OSError as error:  # not there yet, or its name is not known yet
            if time.monotonic() + _RETRY > deadline:
                raise UserError(
                    f"coordinator: {name} cannot be reached within {limit:.0f} s ({error}); "
                    "is the first process running there?"
                ) from error
            time.sleep(_RETRY)
    with contextlib.ExitStack() as opened:
        _ = opened.enter_context(connection)
        connection.settimeout(max(0.1, deadline - time.monotonic()) + _SAY_HELLO)
        _write_line(connection, {"hello": "research", "processes": count, "process": number})
        refused = _read_line(connection).get(
            "refused", f"coordinator: the first process at {name} has ended, or is another program"
        )
        if refused:
            raise UserError(refused)
        _keep_alive(connection)
        _ = opened.pop_all()
    return connection


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel notice a machine that has gone without a word."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE // 3),
        ("TCP_KEEPINTVL", SILENCE // 6),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 1000 * SILENCE),
    ):
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _write_line(connection: socket.socket, message: Message) -> None:
    """Send a message; whether the other one is still there shows in reading."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _read_line(connection: socket.socket) -> Message:
    """One message, or {} for anything else; reads not a byte more."""
    line = b""
    with contextlib.suppress(OSError, ValueError):
        while not line.endswith(b"\n") and len(line) < 4096:
            byte = connection.recv(1)
            if not byte:
                return {}
            line += byte
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}


class Links:
    """The connections of one process, read by threads of their own.

    act: called in such a thread, once, when the run is over before `close`: with the `End` that it
    comes from, and whether all processes have come to the same end.
    """

    def __init__(
        self,
        connections: Mapping[int, socket.socket],
        count: int,
        number: int,
        act: Callable[[End, bool], None],
    ) -> None:
        self._connections, self._count, self._number = dict(connections), count, number
        self._act, self._closed = act, False
        self._inboxes = {peer: queue.SimpleQueue[Message]() for peer in connections}
        self._ends: dict[int, End] = {}  # in the order of their arrival
        self._news = threading.Condition()
        self._here = set(connections)
        for peer in connections:
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()
        if number == 0:
            threading.Thread(target=self._judge, daemon=True).start()

    def send(self, peer: int, value: Any) -> None:
        """Send a JSON-able value to process `peer`; nothing happens if it is not there any more."""
        _write_line(self._connections[peer], {"value": value})

    def receive(self, peer: int) -> Any:
        """The next value from process `peer`; waits for it, and looks at signals meanwhile."""
        return self._inboxes[peer].get()["value"]

    def end(self, text: str, code: int) -> None:
        """Tell the others that this process has ended; `act` follows within `GRACE`."""
        if self._number:
            _write_line(self._connections[0], {"end": text, "code": code})
        else:
            self._note(End(0, text, code))

    def close(self) -> None:
        """Wait until all processes are here; from then on none is missed.  Collective."""
        if self._number:
            self.send(0, None)
            _ = self.receive(0)
            return
        for peer in self._connections:
            _ = self.receive(peer)
        self._closed = True
        with self._news:
            self._news.notify_all()
        for peer in self._connections:
            _write_line(self._connections[peer], {"value": None, "closed": True})

    def wait_until_left(self, limit: float) -> None:
        """Wait until no other process is connected, or for `limit` seconds."""
        with self._news:
            _ = self._news.wait_for(lambda: not self._here, limit)

    def _read(self, peer: int) -> None:
        for message in self._messages(peer):
            if "verdict" in message:
                self._act(End(*message["verdict"]), message["same"])
                return
            if "end" in message:
                self._note(End(peer, message["end"], message["code"]))
                continue
            self._closed = self._closed or "closed" in message
            self._inboxes[peer].put(message)
        with self._news:
            self._here.discard(peer)
            self._news.notify_all()
        if self._closed:
            return
        if self._number:
            self._act(End(peer, "", DIED), False)
        else:
            self._note(End(peer, "", DIED))

    def _messages(self, peer: int) -> Iterator[Message]:
        with contextlib.suppress(OSError, ValueError), self._connections[peer].makefile() as lines:
            for line in lines:
                yield json.loads(line)

    def _note(self, end: End) -> None:
        with self._news:
            _ = self._ends.setdefault(end.number, end)
            self._news.notify_all()

    def _judge(self) -> None:
        """The first process: one has ended; wait for the others, and tell all what came of it."""

        def decided() -> bool:
            return len(self._ends) == self._count or any(not e.text for e in self._ends.values())

        with self._news:
            _ = self._news.wait_for(lambda: self._ends or self._closed)
            if not self._ends:
                return
            _ = self._news.wait_for(decided, GRACE)
            ends = list(self._ends.values())
        same = len(ends) == self._count and len({end.text for end in ends}) == 1
        cause = next((end for end in ends if not end.text), ends[0])
        verdict = {"verdict": dataclasses.astuple(cause), "same": same}
        for peer in self._connections:
            _write_line(self._connections[peer], verdict)
        self._act(cause, same)
