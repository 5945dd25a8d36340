"""Journal, balances, credit and leases, and whether all of it agrees."""
