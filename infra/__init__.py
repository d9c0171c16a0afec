"""The parts that `__main__.py` puts together: settings, app image and replicas, load balancer, release gate."""
