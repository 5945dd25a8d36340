"""Batches of records, from their deliveries to everything that is written with them."""
