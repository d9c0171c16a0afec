"""docker:index/image:Image."""

import os
import platform
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from typing_extensions import override

from airgap.docker_provider.build_context import BuildContext
from airgap.docker_provider.differences import Change, Difference, canonical
from airgap.docker_provider.errors import UserError
from airgap.docker_provider.kinds import Failure, Kind, Naming
from airgap.docker_provider.properties import Properties, bare, has_unknown, secret
from airgap.docker_provider.schema import Input, failures

OUTPUT_LINES: Final = 30
"""Lines of the build's output that the error of a failed build shows."""

_COLOURS: Final = re.compile(r"\x1b\[[\d;]*m")
"""The classic builder marks what goes to standard error with them."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Go's names of what Python calls platform.machine()."""


class Image(Kind):
    """An image that is built, and pushed unless told otherwise. Its id is its name; deleting it leaves it there.

    Builds go through the daemon's classic builder: BuildKit needs a client session, which the Docker SDK has not.
    """

    type = "docker:index/image:Image"
    autonamed = False
    inputs: ClassVar[Mapping[str, Input]] = {
        "build": Input(
            replaces=False,
            fields={
                "addHosts": Input(ordered=True),
                "args": Input(),
                "builderVersion": Input(accepts="BuilderV1"),
                "cacheFrom": Input(fields={"images": Input(required=True, ordered=True)}),
                "context": Input(),
                "contextDigest": Input(),
                "dockerfile": Input(),
                "network": Input(),
                "platform": Input(),
                "target": Input(),
            },
        ),
        "buildOnPreview": Input(replaces=False, accepts="False"),
        "imageName": Input(replaces=False, required=True),
        "registry": Input(
            replaces=False,
            fields={"password": Input(), "server": Input(), "username": Input()},
        ),
        "skipPush": Input(replaces=False),
    }

    @override
    def check(self, old: Properties, new: Properties, naming: Naming) -> list[Failure]:
        wrong = list(failures(self.inputs, new))
        if wrong:
            return wrong
        new.setdefault("buildOnPreview", False)
        build = new.setdefault("build", {})
        if isinstance(build, dict):
            if not has_unknown([build.get("context"), build.get("dockerfile")]):
                context = Path(build.setdefault("context", "."))
                dockerfile = Path(build.setdefault("dockerfile", os.path.normpath(context / "Dockerfile")))
                build["contextDigest"] = _existing(context, dockerfile).digest()
            if "platform" not in build:
                machine = platform.machine()
                build["platform"] = f"linux/{_ARCHITECTURES.get(machine, machine)}"
                self.log(
                    naming.urn, f"Building your image for {build['platform']} architecture.\nSet `platform` to be sure."
                )
        return []

    @override
    def diff(self, state: Properties, old: Properties, new: Properties, ignored: frozenset[str]) -> Difference:
        built, wanted = bare(state.get("__inputs", {})), bare(new)
        changes: dict[str, Change] = {}
        for key in (built.keys() | wanted.keys()) - ignored:
            before, after = built.get(key), wanted.get(key)
            if key == "registry" and before and after:  # logins change without the image doing so
                before, after = before.get("server"), after.get("server")
            if has_unknown(after) or canonical(before, self.inputs[key]) != canonical(after, self.inputs[key]):
                changes[key] = "ADD" if key not in built else "DELETE" if key not in wanted else "UPDATE"
        return Difference(changes)

    @override
    def create(self, urn: str, inputs: Properties) -> tuple[str, Properties]:
        return inputs["imageName"], self._build(urn, inputs)

    @override
    def update(self, urn: str, object_id: str, state: Properties, old: Properties, new: Properties) -> Properties:
        return self._build(urn, new)

    @override
    def read(self, object_id: str, known: Properties) -> Properties | None:
        return known  # the official plugin does not look either

    @override
    def delete(self, object_id: str, state: Properties) -> None:
        """Nothing: the official plugin leaves images where they are."""

    def _build(self, urn: str, inputs: Properties) -> Properties:
        build, name = inputs["build"], inputs["imageName"]
        context = _existing(Path(build["context"]), Path(build["dockerfile"]))
        with tempfile.TemporaryFile() as archive:
            dockerfile = context.archive(archive)
            archive.seek(0)
            self._follow(
                urn,
                f"Building {name}",
                self.api.build(
                    fileobj=archive,
                    custom_context=True,
                    dockerfile=dockerfile,
                    tag=name,
                    platform=build["platform"],
                    buildargs=build.get("args"),
                    target=build.get("target"),
                    network_mode=build.get("network"),
                    extra_hosts=build.get("addHosts"),
                    cache_from=build.get("cacheFrom", {}).get("images"),
                    rm=True,
                    forcerm=True,
                    decode=True,
                ),
            )
        digest = str(self.api.inspect_image(name)["Id"])
        if not inputs.get("skipPush"):
            digest = self._push(urn, name, inputs.get("registry", {})) or digest
        return {
            "__inputs": secret(bare(inputs)),
            "baseImageName": name,
            "context": build["context"],
            "dockerfile": context.relative_dockerfile,
            "imageName": name,
            "platform": build["platform"],
            "registryServer": inputs.get("registry", {}).get("server", ""),
            "repoDigest": digest,
        }

    def _push(self, urn: str, name: str, registry: Mapping[str, str]) -> str:
        """Push the image; its name at the registry, pinned by digest. Empty if the registry does not tell."""
        auth = {"username": registry.get("username"), "password": registry.get("password", "")}
        lines = self.api.push(name, stream=True, decode=True, auth_config=auth if registry.get("username") else None)
        aux = self._follow(urn, f"Pushing {name}", lines)
        digest = aux.get("Digest")
        folder, _, last = name.rpartition("/")
        return f"{folder}/{last.partition(':')[0]}@{digest}".lstrip("/") if digest else ""

    def _follow(self, urn: str, what: str, lines: Iterable[Mapping[str, Any]]) -> Properties:
        """Show the daemon's output as it comes; what it says beside it. Raises UserError if it reports an error."""
        tail: deque[str] = deque(maxlen=OUTPUT_LINES)
        beside: Properties = {}
        try:
            for line in lines:
                output = str(line.get("stream") or line.get("status") or "")
                for text in _COLOURS.sub("", output).splitlines():
                    if text.strip() and text not in list(tail)[-1:]:  # a push says the same for each part of each layer
                        tail.append(text)
                        self.log(urn, text, ephemeral=True)
                beside |= line.get("aux") or {}
                if "error" in line:
                    raise UserError(str(line["error"]))
        except Exception as error:
            shown = "\n".join([*tail, self.daemon.explain(error)])
            raise UserError(f"{what} failed. The end of its output:\n{shown}{self._advice(tail)}") from error
        return beside

    def _advice(self, tail: Iterable[str]) -> str:
        base, host = _missing_base(tail), self.daemon.connection.host
        return base and (
            f"\nThe Docker daemon at {host} neither has the base image {base} nor could it pull it: bring it there "
            "with docker pull, docker load or docker import, or build from another one."
        )


def _missing_base(tail: Iterable[str]) -> str:
    """The base image that a build asked for in the last step before it ended."""
    steps = [line for line in tail if line.startswith("Step ")]
    found = re.fullmatch(r"Step \d+/\d+ : FROM (?:--\S+ )?(\S+).*", steps[-1]) if steps else None
    return found[1] if found else ""


def _existing(folder: Path, dockerfile: Path) -> BuildContext:
    if not folder.is_dir():
        raise UserError(f'build.context: "{folder}" is no folder')
    if not dockerfile.exists():
        inside = folder / dockerfile
        hint = f'. Try setting `dockerfile` to "{inside}"' if inside.exists() else ""
        raise UserError(f'could not open dockerfile at relative path "{dockerfile}"{hint}')
    return BuildContext(folder, dockerfile)
