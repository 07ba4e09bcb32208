#!/bin/sh
# Asks joulemux from a shell: by HTTP with curl, and by D-Bus with busctl.
#
#	ask.sh "Why is the sky blue?"
#
# MODEL names the model; without it joulemux takes the one that is configured or
# loaded. Needs curl and busctl, and jq for the quoting.
set -eu

prompt=${1:?"usage: ask.sh PROMPT"}
socket=$XDG_RUNTIME_DIR/joulemux/api.sock

# HTTP, on the Unix socket: Ollama's API, and what joulemux is told beside it in
# headers. Nobody waits for this one.
jq -n --arg prompt "$prompt" --arg model "${MODEL-}" \
	'{prompt: $prompt, stream: false, options: {num_predict: 48}} + if $model == "" then {} else {model: $model} end' |
	curl --silent --show-error --fail-with-body --unix-socket "$socket" \
		-H 'X-Priority: background' -H 'Content-Type: application/json' --data @- \
		--write-out '%{stderr}%header{x-backend-used}: %header{x-routing-reason}\n' http://localhost/api/generate |
	jq -r .response

# D-Bus: an answer in one piece, with what it took.
set -- "$prompt" 1 max_tokens i 48
[ -z "${MODEL-}" ] || set -- "$1" 2 max_tokens i 48 model s "$MODEL"
busctl --user --json=short call io.github.joulemux.Inference1 /io/github/joulemux/Inference1 \
	io.github.joulemux.Inference1 Generate 'sa{sv}' "$@" |
	jq -r '.data[0], (.data[1] | "\(.backend_used.data) (\(.hardware.data)), \(.tokens_generated.data) tokens, \(.energy_quality.data) \(.energy_joules.data // "?") J")'
