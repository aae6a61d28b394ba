"""Settings of all tests."""

import os

# Before anything imports triton, whose functions are either interpreted or compiled from then on.
os.environ["TRITON_INTERPRET"] = "1"
