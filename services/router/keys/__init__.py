"""Whose key a call has, and which keys providers are called with."""
