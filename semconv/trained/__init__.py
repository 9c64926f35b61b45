"""Trained weights: runs opened again, exports, predictions, and official MAE checkpoints."""
