"""The floor of a server in Python with one event loop: it sends back what it gets.

It checks, limits and logs nothing, and loses what a full buffer does not take. Prints its port.
With an argument, several of them share the port of that number; 0 is a free one.
"""

import select
import socket
import sys
from contextlib import suppress

# As in calcd's serving loop: bytes of one read, and clients that are accepted together.
_READ = 1 << 14
_ACCEPTS = 8


def main() -> None:
    """Serve until the process is ended."""
    shared = len(sys.argv) > 1
    address = ("127.0.0.1", int(sys.argv[1]) if shared else 0)
    listener = socket.create_server(address, backlog=4096, reuse_port=shared)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll, clients = select.epoll(), dict[int, socket.socket]()
    poll.register(listener, select.EPOLLIN)

    def serve(client: socket.socket) -> bool:
        """Return whether the client is still there."""
        with suppress(ConnectionError):
            if data := client.recv(_READ, socket.MSG_DONTWAIT):
                client.send(data)
                return True
        return False

    def accept() -> None:
        with suppress(BlockingIOError):
            for _ in range(_ACCEPTS):
                client, _ = listener.accept()
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                with suppress(BlockingIOError):  # what it asks may have come with it
                    serve(client)

    while True:
        for fd, _ in poll.poll():
            if fd not in clients:
                accept()
            elif not serve(clients[fd]):
                clients.pop(fd).close()


if __name__ == "__main__":
    main()
