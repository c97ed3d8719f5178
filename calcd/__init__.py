"""calcd: exact decimal arithmetic as a network service, asked in plain lines of text."""

__version__ = "0.1.0"
