"""What calcd is measured against, and how: ``python3 -m tests.bench``."""
