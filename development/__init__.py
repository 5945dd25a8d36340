"""What only development needs: the stack of `make run`, its demo, and a simulated provider."""
