"""Rules that are held against the figures, and who is told."""
