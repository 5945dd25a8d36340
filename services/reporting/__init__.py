"""Answers what was used and what it cost, from the ledger's published views."""
