"""Genotypes: the cells that a search finds, published ones, other notations, drawings."""
