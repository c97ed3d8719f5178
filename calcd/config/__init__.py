"""Settings: from text to values."""
