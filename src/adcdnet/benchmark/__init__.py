"""Methods compared on scenes of your own."""
