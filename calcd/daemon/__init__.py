"""The process: start, log, signals, reload, shutdown."""
