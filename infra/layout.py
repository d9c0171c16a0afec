"""Paths, ports, users and labels of the containers on which several parts agree, each named once.

The Dockerfiles in `uwsgi/` and `nginx/` make them so; tests keep them alike.
"""

PORT = 8080  # of NGINX, which is not root and cannot listen below 1024
HTTPS_PORT = 8443

APP_FOLDER = "/app"  # of the app image
SOCKET_FOLDER = "/run/uwsgi"  # the volume in which replicas listen
SOCKET_VARIABLE = "REPLICA_SOCKET"  # in the environment of every replica: where it listens
REPLICA_PORT = 8000  # where it listens, too, in a swarm
PORT_VARIABLE = "REPLICA_PORT"
STOP_DELAY_VARIABLE = "REPLICA_STOP_DELAY"  # seconds that it goes on after it was told to stop
ENVIRONMENT_FILE = "/run/environment.json"  # what stands in for the environment of a replica in a swarm
MEMBERS_FILE = f"{SOCKET_FOLDER}/members"  # the names of the sockets that NGINX asks, one a line

METRICS_FOLDER = "/run/metrics"  # the volume, in memory, of what NGINX tells the exporter
REQUEST_LOG = f"{METRICS_FOLDER}/requests.log"
EXPORTER_PORT = 9113

LIVE_FOLDER = "/etc/nginx/live"  # the volume that holds NGINX's configurations
CACHE_FOLDER = f"{LIVE_FOLDER}/.cache"  # answers that the live instance keeps
CONFIGURATION_FILE = "nginx.conf"
CURRENT = f"{LIVE_FOLDER}/current"  # a link to the folder of the configuration in force
STATIC_FOLDER = f"{LIVE_FOLDER}/.static"  # the static files of releases, a folder each
STATIC_BEFORE = ".before"  # ends the name of a link, beside such a folder, to the one of the release before
SITE_FOLDER = "/etc/nginx/site"  # the configuration in a swarm
RUNTIME_FOLDER = "/run/nginx"  # a tmpfs
PID_FILE = f"{RUNTIME_FOLDER}/nginx.pid"
PROBE_PID_FILE = f"{RUNTIME_FOLDER}/probe.pid"
TEST_PID_FILE = f"{RUNTIME_FOLDER}/test.pid"  # `nginx -t` opens the one that it is given
PROBE_LOG = f"{RUNTIME_FOLDER}/probe.log"  # what it says on standard error
PROBE_SOCKET = f"{RUNTIME_FOLDER}/probe.sock"
BOOT_SOCKET = f"{RUNTIME_FOLDER}/boot.sock"

LABEL_PREFIX = "uwsgi-nginx."  # of the labels by which a stack's containers are found again

NGINX_USER = 101  # as in the official image
APP_USER = 10001
SOCKET_GROUP = 10001  # of the replicas, and of NGINX
