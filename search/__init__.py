"""Find the genotype with the highest reward."""
