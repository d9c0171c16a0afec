"""`liveReload`: the app's folder is mounted, and what is edited there answers at once."""

from tests.live.load import Load
from tests.live.stack import Stack, eventually

APP = "app/webapp.py"


def test_it_is_turned_on_without_a_failed_request(running: Stack) -> None:
    with Load(running.port, slow=0) as load:
        running.configure(liveReload="true")
        running.up()
    load.assert_nothing_was_dropped()
    (mount,) = [found for found in running.replica("uwsgi-1").attrs["Mounts"] if found["Destination"] == "/app"]
    assert (mount["Type"], mount["RW"]) == ("bind", False)
    assert set(running.up().changes) == {"unchanged"}


def test_what_is_edited_answers_without_an_up_and_without_a_failed_request(running: Stack) -> None:
    with Load(running.port, slow=0) as load:
        running.edit(APP, 'RELEASE = "one"', 'RELEASE = "two"')
        eventually(lambda: running.get().startswith("two "), 10, "the edited app")
        running.edit(APP, 'RELEASE = "two"', 'RELEASE = "three')
        eventually(lambda: b"cannot be imported" in running.replica("uwsgi-1").logs(), 10, "word of the mistake")
        assert running.get().startswith("two ")
        running.edit(APP, 'RELEASE = "three', 'RELEASE = "three"')
        eventually(lambda: running.get().startswith("three "), 10, "the mended app")
    load.assert_nothing_was_dropped()


def test_it_is_turned_off_with_what_was_edited_in_the_image(running: Stack) -> None:
    with Load(running.port, slow=0) as load:
        running.configure(liveReload="")
        running.up()
    load.assert_nothing_was_dropped()
    assert running.get().startswith("three ")
    assert [found for found in running.replica("uwsgi-1").attrs["Mounts"] if found["Destination"] == "/app"] == []
