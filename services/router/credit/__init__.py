"""What calls can cost, and the leases that cover it."""
