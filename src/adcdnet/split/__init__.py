"""Which ground trains, validates and tests."""
