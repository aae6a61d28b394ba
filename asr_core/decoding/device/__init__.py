"""Searches that run on a GPU from beginning to end.

The host neither waits for a frame or a symbol nor launches its kernels one by one: all shapes are
fixed, choices are masks, and what repeats is a CUDA graph. On CPU tensors they find the same, more
slowly than the searches for the CPU.
"""
