"""Speaks SQL for the ledger. Stores work inside their caller's transaction."""
