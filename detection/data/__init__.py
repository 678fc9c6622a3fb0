"""COCO annotations, datasets and transforms."""
