"""Training shared by pre-training and fine-tuning: schedules, optimizer, checkpoints, the loop."""
