"""What two services use. Knows no service."""
