# Thin on purpose: what the targets do is in tooling/.
STACK ?= dev
ARGS ?=
TOOLING = python3 -m tooling

.DEFAULT_GOAL := help
.PHONY: help up preview review comment drift refresh destroy recover test test-swarm reliability bench unit lint format reference diagram doctor ps logs shell secret drain resume rollback backup restore orphans adopt upgrade rename certificate url env clean

help:
	@echo 'make TARGET [STACK=dev] [ARGS="--diff …"]   (ARGS are passed on)'
	@sed -n 's/^\([a-z-]*\): ## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

up: ## install what is missing, then create or update the stack; ends with its URL
preview: ## show what `make up` would change
review: ## what a pull request gets: lint, unit tests, policy, preview (ARGS="--base REF")
comment: ## post that on the pull request; in CI
drift: ## fail if anything differs from what is declared: by hand, or not yet deployed
refresh: ## compare the state with what is really there
destroy: ## remove every container, network and volume of the stack
recover: ## after an update that was killed or failed: unlock, `up`, remove what it left behind
test: ## everything: lint, unit and live tests
test-swarm: ## the live tests on a swarm of three daemons of their own; takes root
reliability: ## the fault tests; their figures go into docs/reliability.md and docs/scaling.md
bench: ## this stack beside others (ARGS=--quick; --only=hello,…); into docs/performance.md
unit: ## the tests that need neither Docker nor Pulumi; some minutes
lint: ## style, types, workflows
format: ## put the code into the shape that lint wants
reference: ## write the settings into Pulumi.yaml and docs/configuration.md
diagram: ## draw the program: docs/images/running.svg and docs/architecture.md
doctor: ## is anything wrong, on this machine or with the stack?
ps: ## the stack's containers: state, health, requests, image
logs: ## what they said (ARGS=-f follows them all; --json for programs)
shell: ## a shell in a replica (ARGS=uwsgi-2; ARGS="uwsgi-2 -- ls /app" runs that)
secret: ## another value of a secret: ARGS=environment.API_TOKEN asks for it, and releases
drain: ## take replicas out, without a dropped request: ARGS=uwsgi-2
resume: ## put them back in (ARGS=uwsgi-2; without, all)
rollback: ## go back to the image of the release before
backup: ## the state and the configuration in one file below .local/backups (ARGS=FILE)
restore: ## put them back: ARGS=FILE
orphans: ## what is on the daemon and in no state (ARGS=--remove removes that of STACK)
adopt: ## after a state was lost without a backup: take what runs into a new one
upgrade: ## the newest base images, pinned by digest (ARGS=pythonImage=python:3.14-slim)
rename: ## another name for the stack: ARGS=NEWNAME
certificate: ## make or renew one for development (ARGS="NAME …" adds names)
url: ## print the URL; `make -s url` prints it alone
env: ## print what a shell needs for plain pulumi: eval "$(make -s env)"
clean: ## remove .venv and .local (ARGS=--all: the engine's cache and stand-in images too)

up preview review comment drift refresh destroy recover test test-swarm reliability bench unit lint format reference diagram doctor ps logs shell secret drain resume rollback backup restore orphans adopt upgrade rename certificate url env clean:
	@$(TOOLING) $@ '$(STACK)' $(ARGS)
