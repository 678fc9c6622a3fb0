"""Genotype in, multi-scale features out."""
