"""Built networks -> costs, shapes, drawings, descriptions."""
