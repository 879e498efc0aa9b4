"""The keyswitch command: chat, keys, tokens, receipts, credits and the audit log from a terminal."""
