"""The process: start, log, signals, reload, stop."""
