"""What is kept how long."""
