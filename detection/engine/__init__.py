"""Training, evaluation, prediction and export of detectors."""
