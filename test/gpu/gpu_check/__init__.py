"""The parts of test/gpu/check.py."""
