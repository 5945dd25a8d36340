"""Keeps the accounts and the books: who may call, what a call costs, who owes what."""
