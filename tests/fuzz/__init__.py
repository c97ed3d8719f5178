"""Bytes that no honest client sends, and what is true of the replies to all of them."""
