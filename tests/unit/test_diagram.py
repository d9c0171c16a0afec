"""The pictures of the program are the program's."""

from pathlib import Path

import pytest

from tests.unit import program
from tooling import diagram


def test_the_pictures_are_as_make_diagram_draws_them() -> None:
    declared = program.run()
    page = Path(diagram.PAGE).read_text()
    assert Path(diagram.PICTURE).read_text() == diagram.picture(declared), "run `make diagram`"
    assert page == diagram.page(page, declared), "run `make diagram`"


def test_what_the_picture_has_no_place_for_is_told() -> None:
    with pytest.raises(ValueError, match="no place for exporter, exporter-image"):
        diagram.picture(program.run({"metrics": '{"enabled": true, "port": 9113}'}))


@pytest.mark.parametrize("replicas", [1, 5])
def test_a_picture_has_all_replicas(replicas: int) -> None:
    drawn = diagram.picture(program.run({"replicas": str(replicas)}))
    assert drawn.count("-RELEASE.sock") == replicas


def test_the_graph_leaves_out_what_another_arrow_implies() -> None:
    lines = [line.strip() for line in diagram.graph(program.run())]
    assert "uwsgi-1 --> sockets" in lines
    assert "nginx-8080 --> uwsgi-1" in lines
    assert "nginx-8080 --> sockets" not in lines
