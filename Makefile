# What there is to do. Each line calls a script or a program that says what it
# is doing; variables given to make, such as MODEL=, reach it by environment.

.PHONY: help demo demo-serve check bench install uninstall

help: # what is here
	@sed -n 's/^\([a-z-]*\):.*# /make \1\t/p' Makefile | expand -t 20

demo: # one laptop's day, on real parts; MODEL= names a model that Ollama has
	packaging/rig/install demo
	go run ./packaging/demo

demo-serve: # the demo's machine on the usual ports, until Ctrl-C
	packaging/rig/install demo
	go run ./packaging/demo -serve

check: # all that has to hold before a change goes in
	packaging/rig/install check
	.ci/check

bench: # what the daemon costs, beside a bare proxy
	packaging/rig/install bench
	go run ./packaging/bench

install: # build and install; PREFIX= (/usr/local), DESTDIR=
	packaging/install

uninstall: # remove what install put there
	packaging/install --remove
