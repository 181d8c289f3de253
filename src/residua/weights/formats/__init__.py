"""Files of other programs -> raw layers."""
