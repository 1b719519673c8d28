"""A package, so that a fixture can be of it and end with it."""
