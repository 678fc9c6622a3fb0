"""COCO metrics, error analysis, reports and comparisons."""
