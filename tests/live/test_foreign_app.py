"""An app that was never written for this stack, deployed by configuration alone."""

from tests.live.stack import Stack

APP = """
import os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/alive":
        start_response("204 No Content", [])
        return []
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.environ['GREETING']} {os.environ['API_TOKEN']} {os.uname().nodename}".encode()]
"""
SECRET = "hunter2-correct-horse"  # made up, and looked for where it must not be


def test_any_wsgi_app_is_deployed_by_configuration_alone(stack: Stack) -> None:
    package = stack.folder / "shop" / "store"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "wsgi.py").write_text(APP)
    (package.parent / "requirements.txt").touch()
    stack.configure(
        appFolder="shop", appModule="store.wsgi", appCallable="application", healthPath="/alive", importCheck="false"
    )
    stack.pulumi("config", "set", "--path", "environment.GREETING", "Good day")
    stack.pulumi("config", "set", "--secret", "--path", "environment.API_TOKEN", SECRET)
    stack.up()
    assert {stack.get() for _ in range(10)} == {f"Good day {SECRET} uwsgi-1", f"Good day {SECRET} uwsgi-2"}


def test_its_secret_is_neither_in_the_state_nor_in_a_preview(stack: Stack) -> None:
    assert SECRET not in stack.pulumi("stack", "export").output
    assert SECRET not in (stack.folder / f"Pulumi.{stack.name}.yaml").read_text()
    stack.configure(memory="200")
    preview = stack.preview("--diff")
    assert SECRET not in preview.output
    assert "uwsgi-1" in preview.output


def test_rotating_the_secret_makes_a_release_of_its_own(stack: Stack) -> None:
    before = stack.outputs()["release"]
    stack.pulumi("config", "set", "--secret", "--path", "environment.API_TOKEN", "rotated")
    stack.up()
    assert stack.outputs()["release"] != before
    assert {stack.get().split()[2] for _ in range(10)} == {"rotated"}


def test_the_image_answers_http_when_it_is_run_by_hand(stack: Stack) -> None:
    container = stack.docker.containers.run(
        stack.outputs()["image"],
        detach=True,
        labels={"uwsgi-nginx.stack": stack.name},
        environment={"GREETING": "By", "API_TOKEN": "hand", "UWSGI_HTTP_PORT": "9000"},
    )
    try:
        ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9000/').read().decode())"
        script = f'for i in 1 2 3 4 5 6 7 8 9; do python -c "{ask}" 2>/dev/null && exit; sleep 0.5; done; exit 1'
        code, output = stack.run_in(container, script)
        assert code == 0, container.logs().decode()
        assert output.startswith("By hand")
    finally:
        container.remove(force=True)
