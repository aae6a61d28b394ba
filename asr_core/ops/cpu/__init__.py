"""Fused CPU kernels, compiled by numba on first use and kept in its cache; every caller has a plain
torch form beside it.
"""
