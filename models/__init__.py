"""Networks, and the registry that builds one from a recipe and a schema."""
