"""What expires, and who sees to it."""
