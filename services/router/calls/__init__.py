"""A call, from its admission to its record."""
