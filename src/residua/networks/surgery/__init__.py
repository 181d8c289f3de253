"""Built networks -> networks with other heads, frozen stages, folded norms."""
