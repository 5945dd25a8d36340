"""Balances, entries, statements, and the proof that everything agrees."""
