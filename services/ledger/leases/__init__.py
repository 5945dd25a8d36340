"""Credit that routers hold."""
