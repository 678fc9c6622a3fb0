"""Detectors on any backbone."""
