"""Triton kernels, for float32, bfloat16 and float16 tensors on GPUs.

The modules with kernels import triton, which not every machine has: others name them by
:func:`asr_core.ops.gpu.dispatch.deferred`. Arguments of a kernel whose names end in ``_at`` are
addresses (tensors to the caller), those in capitals are known when it is compiled.
"""
