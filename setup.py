"""Build and install dispy; the version is read from the package without importing it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "dispy/__init__.py").read_text())[1]

setup(
    name="dispy",
    version=VERSION,
    description="Turn any set of machines into a compute cluster",
    long_description=(HERE / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="Apache-2.0",
    package_dir={"": "."},  # so that an installation in place costs a start of Python nothing
    packages=find_packages(include=["dispy", "dispy.*"]),
    py_modules=["dispy_all"],
    package_data={"dispy": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "gevent>=24.2",
        "msgpack>=1.0.5",
        "cloudpickle>=3.0",
        "pyOpenSSL>=24.3",
        "cryptography>=42",
        "docopt-ng>=0.9",
        "psutil>=5.9",
        "tomli>=2.0; python_version<'3.11'",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "jupyter_client>=8",
            "numpy>=1.26",
            "pandas>=2.1",
            "setuptools>=70.1",
        ],
        "bench": ["distributed>=2024.8"],
        "fuzz": ["atheris>=3.0"],
        "docs": ["sphinx>=8.1,<10", "furo>=2024.8.6,<2026"],
        "lint": ["ruff>=0.17,<0.18", "mypy>=2.4,<3"],
    },
    entry_points={"console_scripts": ["dispy = dispy_all:main"]},
)
