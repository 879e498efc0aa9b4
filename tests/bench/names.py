"""What the report calls the peers."""

KEYSWITCH = "Keyswitch"
CREDITS = "Keyswitch, credits"
PIPE = "bare pipe"
LITELLM = "LiteLLM"
DIRECT = "upstream alone"
