"""Recorded drives: open them, replay them through the daemon, draw and report what came out."""
