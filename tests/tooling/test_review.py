"""The comment that a pull request gets; tests/live/test_pull_request.py has the whole way there."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tooling.conftest import Bench
from tooling import bootstrap, review
from tooling.console import Failure
from tooling.review import Previewed

URN = "urn:pulumi:dev::p::parent$"
RELEASE = f"{URN}pulumi-python:dynamic:Release::release"
IMAGE = f"{URN}docker:index/image:Image::app-image"
CONTAINER = f"{URN}docker:index/container:Container::uwsgi-1"


def step(operation: str, urn: str, before: object = None, after: object = None, **more: object) -> dict[str, Any]:
    kind = urn.split("$")[1].split("::")[0]
    states = {"oldState": before, "newState": after}
    given = {k: {"urn": urn, "type": kind, "inputs": v} for k, v in states.items() if v is not None}
    return {"op": operation, "urn": urn, **given, **more}


def release(operation: str, before: str | None, after: str | None) -> dict[str, Any]:
    texts = [None if text is None else {"configuration": text, "files": {"a.conf": "a"}} for text in (before, after)]
    return step(operation, RELEASE, *texts)


def told(*steps: dict[str, Any], broken: tuple[str, ...] = (), **codes: int) -> str:
    return review.comment("dev", Previewed("`main`", {"steps": steps, "changeSummary": {"same": 7}}), broken, codes)


def test_it_says_what_happens_to_which_resource_and_why() -> None:
    text = told(
        step("same", f"{URN}docker:index/network:Network::network", {}, {}),
        step("replace", CONTAINER, {}, {}, diffReasons=["image", "envs", "image"]),
        step("create-replacement", CONTAINER, {}, {}),
        step("delete-replaced", CONTAINER, {}, {}),
        step("update", IMAGE, {"imageName": "a", "build": 1}, {"imageName": "b", "build": 1}),
        step("delete", f"{URN}x:y:Z::a|b", {}),
    )
    assert "**1 to delete, 1 to replace, 1 to update, 7 unchanged.** Compared with `main`." in text
    assert "| replace | uwsgi-1 (Container) | envs, image |" in text
    assert "| update | app-image (Image) | imageName |" in text
    assert r"| delete | a\|b (Z) |  |" in text
    assert "network" not in text


def test_the_first_line_tells_whose_preview_it_is() -> None:
    assert told().splitlines()[0] == "<!-- uwsgi-nginx: preview of dev -->"


def test_nothing_to_do_is_said_in_words() -> None:
    text = told(release("same", "events {}", "events {}"))
    assert "**Nothing changes.**" in text
    assert text.endswith("### NGINX configuration\n\nNo change.\n")


def test_the_configuration_is_shown_as_a_diff() -> None:
    text = told(release("update", "one;\ntwo;", "one;\n2;"))
    assert "```diff\n--- a/nginx.conf\n+++ b/nginx.conf\n@@ -1,2 +1,2 @@\n one;\n-two;\n+2;\n```" in text
    assert "a.conf" not in text


def test_that_of_a_first_deployment_is_new_in_whole() -> None:
    assert "+one;\n" in told(release("create", None, "one;"))
    assert "-one;\n" in told(release("delete", "one;", None))


@pytest.mark.parametrize("secret", ["nginx", "[secret]"])
def test_what_is_secret_stays_so(secret: str) -> None:
    text = told(step("update", RELEASE, {"configuration": "a", "files": secret}, {"configuration": secret}))
    assert "-a\n" in text


def test_the_configs_of_a_swarm_are_shown_likewise() -> None:
    urn = f"{URN}docker:index/serviceConfig:ServiceConfig::nginx.conf"
    texts = [{"data": base64.b64encode(text.encode()).decode()} for text in ("old;", "new;")]
    text = told(step("replace", urn, *texts), step("delete-replaced", urn, texts[0]))
    assert "-old;\n+new;\n" in text
    assert "-raw;" in told(step("delete", urn, {"dataRaw": "raw;"}))


def test_nothing_in_the_configuration_ends_its_fence() -> None:
    text = told(release("update", "", "a\n```\n# no heading"))
    assert "````diff\n" in text
    assert text.endswith("````\n")


def test_markup_in_names_is_none() -> None:
    assert "&lt;img" in told(step("update", f"{URN}a:b:C::<img", {}, {}, diffReasons=["x"]))


def test_a_comment_is_no_longer_than_a_forge_takes() -> None:
    text = told(release("update", "", "line\n" * 50_000), broken=("word " * 10_000,))
    assert len(text) < 65_536
    assert "and more" in told(release("update", "", "line\n" * 50_000))


def test_what_breaks_the_policy_stands_in_it() -> None:
    assert "- ❌ policy\n  - a is wrong" in told(broken=("a is wrong",))
    assert "- ✅ policy" in told()


def test_checks_stand_in_it() -> None:
    assert "- ✅ `a`\n- ❌ `b`" in told(a=0, b=1)


def test_a_preview_that_failed_says_why_and_nothing_else() -> None:
    text = review.comment("dev", Previewed("", {}, "replicas: 0 is too few"), [], {})
    assert "The preview failed" in text
    assert "replicas: 0 is too few" in text
    assert "policy" not in text


# From the engine's answer


@pytest.fixture
def pulumi(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any] | str, int], None]:
    """Has `pulumi preview` print something, and exit."""

    def answers(printed: dict[str, Any] | str, code: int) -> None:
        text = printed if isinstance(printed, str) else json.dumps(printed)
        (bench.root / "printed").write_text(text)
        program = bench.root / "bin" / "pulumi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho said on stderr >&2\ncat '{bench.root}/printed'\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setattr(bootstrap, "ensure", lambda *_: None)
    monkeypatch.setenv("PATH", f"{bench.root}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return answers


Pulumi = Callable[[dict[str, Any] | str, int], None]


def test_all_well_is_no_failure(
    pulumi: Pulumi, bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = bench.root / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    pulumi({"steps": []}, 0)
    assert review.run(bench.root, "dev", [], {"make lint": lambda: 0}) == 0
    text = (bench.root / ".local" / "review.md").read_text()
    assert "- ✅ `make lint`" in text
    assert summary.read_text() == text
    assert text in capsys.readouterr().out


def test_the_comment_goes_where_it_is_wanted(pulumi: Pulumi, bench: Bench) -> None:
    pulumi({"steps": []}, 0)
    out = bench.root / "elsewhere.md"
    assert review.run(bench.root, "dev", ["--preview-only", "--out", str(out)], {"lint": lambda: 1}) == 0
    assert "lint" not in out.read_text()


def test_a_check_that_fails_fails_it_and_the_preview_is_there_all_the_same(pulumi: Pulumi, bench: Bench) -> None:
    pulumi({"steps": []}, 0)
    assert review.run(bench.root, "dev", [], {"make unit": lambda: 2}) == 1
    assert "**Nothing changes.**" in (bench.root / ".local" / "review.md").read_text()


def test_a_broken_policy_fails_it(pulumi: Pulumi, bench: Bench) -> None:
    pulumi({"steps": [step("create", CONTAINER, None, {"image": "nginx"})]}, 0)
    assert review.run(bench.root, "dev", ["--preview-only"], {}) == 1
    assert "uwsgi-1 runs nginx, which may be another image tomorrow" in (bench.root / ".local/review.md").read_text()


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (
            {"diagnostics": [{"severity": "error", "message": "<{%fg 1%}>replicas<{%reset%}>: no"}]},
            "```text\nreplicas: no\n",
        ),
        ("not JSON", "said on stderr"),
    ],
)
def test_a_preview_that_fails_fails_it_in_words(
    pulumi: Pulumi, bench: Bench, printed: dict[str, Any] | str, words: str
) -> None:
    pulumi(printed, 255)
    assert review.run(bench.root, "dev", ["--preview-only"], {}) == 1
    assert words in (bench.root / ".local/review.md").read_text()


def test_a_failure_on_the_way_stands_in_the_comment(
    pulumi: Pulumi, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    del pulumi

    def ensure(*_: object) -> None:
        raise Failure("No daemon.", "Start it.")

    monkeypatch.setattr(bootstrap, "ensure", ensure)
    assert review.run(bench.root, "dev", ["--preview-only"], {}) == 1
    assert "No daemon.\n\nStart it." in (bench.root / ".local/review.md").read_text()


# Against a commit


def test_a_configuration_with_secrets_cannot_be_deployed_by_strangers(pulumi: Pulumi, bench: Bench) -> None:
    pulumi({}, 0)
    (bench.root / "Pulumi.prod.yaml").write_text("config:\n  p:environment:\n    TOKEN:\n      secure: v1:abc\n")
    assert review.run(bench.root, "prod", ["--preview-only", "--base", "main"], {}) == 1
    assert "Pulumi.prod.yaml has secrets" in (bench.root / ".local/review.md").read_text()


def test_where_the_stack_is_kept_and_runs_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    file.write_text('encryptionsalt: v1:x\nconfig:\n  docker:host: ssh://there\n  p:port: "80"\n')
    assert review._without_place(file) == 'config:\n  p:port: "80"\n'
    assert review._without_place(tmp_path / "none.yaml") == "config: {}\n"


def test_a_commit_that_is_not_there_is_named(bench: Bench, pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch) -> None:
    pulumi({}, 0)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{os.defpath}{os.pathsep}/usr/bin")
    subprocess.run(["git", "init", "--quiet", str(bench.root)], check=True)
    assert review.run(bench.root, "dev", ["--preview-only", "--base", "origin/nowhere"], {}) == 1
    assert "origin/nowhere cannot be checked out" in (bench.root / ".local/review.md").read_text()
