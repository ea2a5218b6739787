"""Tools of a shop, for the telephone."""
