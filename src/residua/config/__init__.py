"""Settings: their schema, parsing, recipes, automatic values and validation."""
