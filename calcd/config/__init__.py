"""Settings: text becomes values."""
