"""Coverage-guided fuzzing of what reads providers' bytes: `make fuzz`."""
