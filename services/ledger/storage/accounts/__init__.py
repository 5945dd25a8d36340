"""Organizations, projects and keys."""
