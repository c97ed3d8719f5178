"""Sockets and threads: connections, datagrams, listeners."""
