"""Demonstration data: labeled scenes of textured shapes, drawn by a seeded generator."""
