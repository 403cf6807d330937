"""The R1 system stage by stage, one file each, and what a user can ask of it."""
