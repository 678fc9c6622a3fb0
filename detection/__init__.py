"""Faster R-CNN on any backbone, on COCO-format data."""
