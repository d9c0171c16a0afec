"""Whether the site is reached, asked as somebody on a node of the swarm would."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.docker_host import DAEMON_ERRORS
from infra.refusal import Refused
from infra.swarm import one_off

TIMEOUT = 30  # seconds until it must be
POLL_INTERVAL = 0.5  # seconds
NO_ANSWER = ("000", "502", "504")  # of curl, which then got none, and of NGINX, which then had none


@dataclass(frozen=True)
class Site:
    """What is asked.

    Attributes:
        image: of NGINX, which has what asks.
        port: on which it answers.
        path: that the app answers.
        nodes: the label, name=value, of the nodes that answer; empty: all.
        labels: of a container that asks.
    """

    image: str
    port: int
    path: str
    nodes: str
    labels: Mapping[str, str]


def ask(client: Any, site: Site) -> None:
    """Asks on the node of the manager that the program talks to, if it is one that answers. Others may be out of reach.

    Raises:
        Refused: there is no answer.
    """
    try:
        if _answers(client, site):
            _ask(client, site)
    except DAEMON_ERRORS as error:
        reason = getattr(error, "explanation", None) or error
        raise Refused(f"All runs, but the swarm's manager did not ask the site for {site.path}: {reason}.") from error


def _answers(client: Any, site: Site) -> bool:
    name, _, value = site.nodes.partition("=")
    here = client.api.inspect_node(client.info()["Swarm"]["NodeID"])["Spec"]
    has = (here.get("Labels") or {}).get(name, "")
    return bool(here["Availability"] == "active" and (not name or has.casefold() == value.casefold()))


def _ask(client: Any, site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}{site.path}"
    command = ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url]
    deadline = time.monotonic() + TIMEOUT
    while True:
        _, status = one_off.run(client, site.image, command, labels=site.labels, network="host")
        if status not in NO_ANSWER:
            return
        if time.monotonic() > deadline:
            raise Refused(_in_words(url, status))
        time.sleep(POLL_INTERVAL)


def _in_words(url: str, status: str) -> str:
    if status != "000":
        return f"NGINX runs, but at {url}, asked on the manager's own node, it answers {status}: it has no replica."
    return (
        f"NGINX runs, but nothing answers at {url}, asked on the manager's own node. Where swarm.publish is mesh, that "
        "is Docker's routing mesh, which takes IPVS in the kernel of every node (`modprobe ip_vs`) and ports 7946 and "
        "4789 open between them: the daemons' logs say what is missing. swarm.publish: host takes neither."
    )
