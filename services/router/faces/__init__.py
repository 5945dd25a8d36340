"""How calls come in, over HTTP and gRPC, and what is said of those that fail."""
