"""Detectors on any backbone; ``config`` has their table."""
