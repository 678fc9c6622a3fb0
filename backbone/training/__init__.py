"""Classifier training: images, augmentation, optimization, pretraining."""
