"""Alert rules, and what their webhooks are told."""
