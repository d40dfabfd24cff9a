"""Check inputs before, judge maps after."""
