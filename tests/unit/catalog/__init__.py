"""The configuration file and the built-in catalog."""
