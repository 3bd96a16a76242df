"""Trackers: what a run tells TensorBoard, Weights & Biases, MLflow, Trackio or a class of one's own, round by round."""
