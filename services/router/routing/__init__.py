"""Which provider is tried when, and how projects and keys want it otherwise."""
