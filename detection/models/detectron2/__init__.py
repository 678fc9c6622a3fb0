"""Detectors built from detectron2's components."""
