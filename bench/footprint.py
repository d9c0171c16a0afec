"""Memory and image sizes, this stack's beside the original's."""

from __future__ import annotations

import statistics
from typing import Any

from bench import accounting
from bench.contenders import Field
from bench.session import Session


def measure(session: Session, contenders: Field) -> dict[str, Any]:
    """MiB of a replica and of the proxy in front, after the load that they had; MB of the images."""
    client = session.docker
    memory = {
        key: {
            part: statistics.mean(accounting.proportional_memory(client, one) for one in ids)
            for part, ids in contenders[key].parts.items()
        }
        for key in ("port", "original")
    }
    nginx = str(client.containers.get(contenders["port"].parts["NGINX"][0]).attrs["Image"])
    original = str(client.containers.get(contenders["original"].parts["uWSGI"][0]).attrs["Image"])
    images = {
        "app": (contenders.app_image, session.images["pythonImage"]),
        "nginx": (nginx, session.images["nginxImage"]),
        "original": (original, contenders.full_python),
    }
    sizes = {
        name: {
            "image_mb": accounting.size(client, image),
            "base": base,
            "base_mb": accounting.size(client, base),
            "added_mb": accounting.size(client, image) - accounting.size(client, base),
        }
        for name, (image, base) in images.items()
    }
    session.say(
        f"the app image adds {sizes['app']['added_mb']:.0f} MB to its base, "
        f"the original's {sizes['original']['added_mb']:.0f} MB"
    )
    return {"memory_mib": memory, "images": sizes}
