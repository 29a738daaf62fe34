"""Builds the image of a tiny model server out of Debian's busybox-static, without docker or a registry.

    python server_image.py ARCHIVE NAME:TAG     # writes what `docker save` would

The server takes the environment that deploy_model gives to every server (MODEL_NAME, MODEL_URI), as TensorFlow Serving
does, and listens on 8501; or the command line of this collection's own server, `python -m kfp_hybrid.serving FOLDER
--name NAME --port PORT`. It answers /v1/models/NAME with the content of the model, which is a file saved_model.pb, and
/v1/servers/NAME with which of the two it plays. A model with the content "broken" ends it with an error. The image also
has a `python -m kfp_hybrid.storage download URI FOLDER` that makes such a model out of the URI's name, in the place of
the image `deployment`.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SERVE = """#!/bin/sh
echo "loading $MODEL_URI"
model=$MODEL_URI/saved_model.pb
[ -f "$model" ] || { echo "there is no model at $MODEL_URI"; exit 1; }
if grep -q broken "$model"; then echo "cannot parse $model"; exit 1; fi
mkdir -p /tmp/www/v1/models /tmp/www/v1/servers && cp "$model" "/tmp/www/v1/models/$MODEL_NAME"
echo "${SERVER:-tensorflow-serving}" > "/tmp/www/v1/servers/$MODEL_NAME"
exec httpd -f -p "${PORT:-8501}" -h /tmp/www
"""
OURS = """#!/bin/sh
export SERVER=kfp-hybrid MODEL_URI=$1
shift
while [ $# -gt 0 ]; do
  case $1 in
    --*=*) option=${1%%=*} value=${1#*=} ;;
    *) option=$1 value=$2; shift ;;
  esac
  shift
  case $option in
    --name) export MODEL_NAME=$value ;;
    --port) export PORT=$value ;;
  esac
done
mkdir -p /tmp/www/v2/health && touch /tmp/www/v2/health/ready /tmp/www/v2/health/live
exec serve
"""
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m kfp_hybrid.serving" ]; then shift 2; exec ours "$@"; fi
[ "$1 $2 $3" = "-m kfp_hybrid.storage download" ] || { echo "not expected: $*"; exit 2; }
case $4 in
  *missing*) echo "there is no object $4"; exit 1 ;;
  *secret*) [ -n "$AWS_ACCESS_KEY_ID" ] || { echo "no credentials"; exit 1; } ;;
esac
mkdir -p "$5" && echo "$4" > "$5/saved_model.pb"
"""
APPLETS = ("sh", "echo", "grep", "mkdir", "cp", "httpd", "sleep", "cat", "wget", "touch")


def build(archive: Path, name: str) -> None:
    """Write the image."""
    with tempfile.TemporaryDirectory() as folder:
        layer = _layer(_busybox(Path(folder)))
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/serve"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }
    manifest = [{"Config": "image.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer)
        _add(tar, "image.json", json.dumps(image).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _busybox(folder: Path) -> bytes:
    """The program, out of Debian's package; nothing is installed."""
    installed = Path("/usr/share/doc/busybox-static"), Path("/bin/busybox")
    if all(path.exists() for path in installed):
        return installed[1].read_bytes()
    folder.chmod(0o755)
    command = ["apt-get", "download", "-q", "busybox-static"]
    if subprocess.run(command, cwd=folder, capture_output=True).returncode:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "files"], check=True)
    return next(folder.glob("files/**/bin/busybox")).read_bytes()


def _layer(busybox: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("models", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", busybox, 0o755)
        _add(tar, "bin/serve", SERVE.encode(), 0o755)
        _add(tar, "bin/ours", OURS.encode(), 0o755)
        _add(tar, "bin/python", PYTHON.encode(), 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2])
