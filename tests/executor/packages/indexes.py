"""Package indexes for tests: a folder of wheels made on the spot, an npm registry on loopback, a host that hangs."""

import base64
import hashlib
import io
import json
import socket
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(folder, name, version="1.0", *, files=None, needs=()):
    """A pure-Python wheel; without `files` it holds one module of its name with its version."""
    module = name.replace("-", "_")
    files = {f"{module}.py": f"version = {version!r}\n"} if files is None else files
    info = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    everything = {
        **files,
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(data)},\n" for path, data in everything.items())
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, data in {**everything, f"{info}/RECORD": record}.items():
            archive.writestr(place, data)
    return path


def sdist(folder, name, version="1.0"):
    """A source archive whose build would betray itself."""
    setup = f"open({str(folder / 'was-built')!r}, 'w')\nfrom setuptools import setup\nsetup(name={name!r})\n"
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for path, text in ((f"{name}-{version}/setup.py", setup), (f"{name}-{version}/PKG-INFO", info)):
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


class Registry:
    """An npm registry; `packages` maps a name to its versions, each a package.json and further files."""

    def __init__(self):
        self.packages = {}
        self.asked = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.asked.append(self.path)
                status, body = registry.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name, version="1.0.0", *, files=None, **about):
        files = {"index.js": f"module.exports = {json.dumps(version)};\n"} if files is None else files
        self.packages.setdefault(name, {})[version] = ({"name": name, "version": version, **about}, files)

    def answer(self, path):
        name, _, archive = path[1:].partition("/-/")
        name = name.replace("%2f", "/")
        versions = self.packages.get(name)
        if versions is None:
            return 404, b'{"error": "Not found"}'
        if archive:
            return 200, self._archive(*versions[archive.removesuffix(".tgz").rpartition("-")[2]])
        listed = {
            version: {**about, "dist": {"tarball": f"{self.url}/{name}/-/x-{version}.tgz"}}
            for version, (about, _) in versions.items()
        }
        return 200, json.dumps({"name": name, "dist-tags": {"latest": list(versions)[-1]}, "versions": listed}).encode()

    @staticmethod
    def _archive(about, files):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for path, text in {"package.json": json.dumps(about), **files}.items():
                member = tarfile.TarInfo(f"package/{path}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return buffer.getvalue()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def hanging_host():
    """The address of a host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _digest(data):
    raw = data.encode() if isinstance(data, str) else data
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
