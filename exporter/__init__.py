"""Figures of a stack, for Prometheus and for people: what NGINX logs of each request, and what uWSGI says of itself.

It runs in a container of its own, in which these modules are all there is: they import nothing else of the project.
"""
