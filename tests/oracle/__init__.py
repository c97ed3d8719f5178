"""Checks functions against an oracle: Arb's balls, or integer arithmetic where that decides."""
