"""Arguments of the public functions -> calls of the internal modules; `residua.NAME` is here."""
