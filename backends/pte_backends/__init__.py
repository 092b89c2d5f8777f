"""Backends of pte_tracking: JSON log, TensorBoard, MLflow, and Weights & Biases."""
