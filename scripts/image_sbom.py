"""Print what is in an image as a CycloneDX document. Runs inside the image, which has only the standard library.

docker run --rm -i IMAGE python3 - REFERENCE < scripts/image_sbom.py
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote


def python_packages() -> Iterator[dict]:
    """Every Python distribution on the import path."""
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        yield component("library", name, distribution.version, f"pkg:pypi/{name}@{quote(distribution.version)}")


def debian_packages() -> Iterator[dict]:
    """Every package that dpkg knows."""
    form = "${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        status, name, version, architecture = line.split()
        if status == "ii":
            url = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
            yield component("library", name, version, url)


def component(kind: str, name: str, version: str, url: str) -> dict:
    """One component; its package URL is what scanners look it up by."""
    return {"type": kind, "bom-ref": url, "name": name, "version": version, "purl": url}


python = platform.python_version()
found = [component("platform", "python", python, f"pkg:generic/python@{python}"), *python_packages()]
found += debian_packages()
unique = {item["bom-ref"]: item for item in found}
document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "version": 1,
    "metadata": {"component": {"type": "container", "bom-ref": sys.argv[1], "name": sys.argv[1]}},
    "components": [unique[reference] for reference in sorted(unique)],
}
print(json.dumps(document, indent=1))
