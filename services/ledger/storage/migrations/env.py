"""Alembic runs this for every migration, on the connection that `migrate` opened."""

from alembic import context
from sqlalchemy import Connection, text

config = context.config
connection: Connection = config.attributes["connection"]

# Alembic looks for its own table before the first migration could make a place for it.
with connection.begin():
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS ledger"))

context.configure(
    connection=connection,
    version_table="schema_version",
    version_table_schema="ledger",
    # What is applied stays applied when a later step fails, and the next run goes on from there.
    transaction_per_migration=True,
    on_version_apply=config.attributes["on_version_apply"],
)

with context.begin_transaction():
    context.run_migrations()
