"""A trained model, and the map it makes."""
