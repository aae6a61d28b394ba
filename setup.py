"""Installs asr_core; `pip install -e .` is all that the recipes need."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "asr_core/__init__.py").read_text()).group(1)

test = ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6", "mypy>=1.11"]
demo = ["espeakng-loader>=0.2"]
plot = ["matplotlib>=3.7"]
dask = ["dask[distributed]>=2023.1"]  # features computed on a cluster
lilcom = ["lilcom>=1.7"]  # features that icefall stored
graph = ["kaldifst>=1.7"]  # composing LG
triton = ["triton>=3.0; platform_system == 'Linux'"]  # the tests interpret its kernels

setup(
    name="asr_core",
    version=version,
    description="Speech recognition recipes on one shared core: streaming Zipformers in plain PyTorch",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["asr_core", "asr_core.*"]),
    install_requires=[
        "torch>=2.4",
        "numpy>=1.23",
        "numba>=0.59",
        "lhotse>=1.30",
        "scipy>=1.10",  # lhotse imports it without declaring it
        "urllib3>=1.26",  # likewise
        "sentencepiece>=0.1.99",
        "kaldialign>=0.7",
        "soundfile>=0.12",
        "tensorboard>=2.12",
        "tqdm>=4.60",
    ],
    extras_require={
        "test": test + demo + plot + dask + lilcom + graph + triton,
        "demo": demo,
        "plot": plot,
        "dask": dask,
        "lilcom": lilcom,
        "graph": graph,  # composing LG and HLG
        "kenlm": ["kenlm>=0.2"],  # its binary n-gram files
    },
)
