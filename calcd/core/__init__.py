"""The protocol and the arithmetic: no socket, thread, clock, file or log."""
