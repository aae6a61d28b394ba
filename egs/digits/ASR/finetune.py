#!/usr/bin/env python3
from asr_core.bin.recipe import run

run(__file__, __name__)
