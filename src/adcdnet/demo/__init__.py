"""A simulated scene from nothing, and the whole chain on it."""
