"""Records of calls on their way into the books."""
