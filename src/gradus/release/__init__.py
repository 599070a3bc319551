"""Leaving this machine and coming to it: push, pull, import."""
