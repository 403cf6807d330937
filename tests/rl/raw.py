"""A server below HTTP: it reads each question and writes whatever bytes, and in whatever time, it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\n"
TEN_GIGABYTES = b"Content-Length: 10000000000\r\n\r\n"
Script = Callable[[socket.socket], None]


class Raw:
    """Reads each question and lets the next of `scripts` write to the connection; the last one
    serves the rest."""

    def __init__(self, *scripts: Script) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.scripts, self.asked = list(scripts), 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """The thread first: one that waits at a number that is closed would serve the next socket of
        that number."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            script = self.scripts[min(self.asked, len(self.scripts) - 1)]
            self.asked += 1
            threading.Thread(target=self.answer, args=(connection, script), daemon=True).start()

    def answer(self, connection: socket.socket, script: Script) -> None:
        with connection:
            try:
                read_question(connection)
                script(connection)
            except OSError:  # the other side has had enough
                pass


def read_question(connection: socket.socket) -> None:
    said, length = b"", 0
    while b"\r\n\r\n" not in said or len(said.partition(b"\r\n\r\n")[2]) < length:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the question broke off")
        said += piece
        length = int(said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)


def says(body: bytes, code: str = "200 OK", *headers: str) -> Script:
    lines = [f"HTTP/1.1 {code}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def drips(head: bytes, piece: bytes) -> Script:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(600):
            connection.sendall(piece)
            time.sleep(0.1)

    return drip


def floods(head: bytes, piece: bytes = b"x" * 65536) -> Script:
    def flood(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return flood
