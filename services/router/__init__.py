"""The data plane: model calls in, providers out, and a record of each that is never lost."""
