"""Who there is: organizations, projects, keys, their settings and limits, and what was changed by whom."""
