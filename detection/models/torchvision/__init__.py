"""Detectors built from torchvision's components."""
