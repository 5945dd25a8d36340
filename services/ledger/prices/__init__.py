"""The price book: versions, discounts, the catalogue, what a model can cost at most."""
