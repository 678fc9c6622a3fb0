"""Conversion between COCO, Pascal VOC, YOLO and WIDER FACE annotations."""
