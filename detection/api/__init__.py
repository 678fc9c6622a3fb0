"""The Python API of detection: train, detect, evaluate, compare."""
