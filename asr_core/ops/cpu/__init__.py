"""Fused CPU kernels, compiled by numba on first use and kept in its cache.

Every caller has a plain torch form beside it.
"""
