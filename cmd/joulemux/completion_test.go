package main

import (
	"strings"
	"testing"
)

func TestWhatTheDaemonKnowsIsOffered(t *testing.T) {
	r := replay(t, answers{
		"GET models":    says(`{"models":[{"name":"tiny","names":["tiny","other"]}]}`),
		"GET backends":  says(`{"backends":[{"id":"ollama-npu","hardware":"npu"}]}`),
		"GET pipelines": says(`{"pipelines":[{"name":"triage"}]}`),
	})
	for _, c := range []struct{ args, want string }{
		{"generate --model t", "tiny\nother\n:4\n"}, // the shell takes those that fit
		{"explain --target o", "ollama-npu\nnpu\n:4\n"},
		{"pull --backend o", "ollama-npu\nnpu\n:4\n"},
		{"pipeline run --model t", "tiny\nother\n:4\n"},
		{"pipeline run t", "triage\n:0\n"}, // or a file
		{"pipeline run triage t", ":4\n"},
		{"pipeline show t", "triage\n:4\n"},
		{"pipeline check t", "yaml\n:8\n"}, // files of that kind
	} {
		args := append([]string{"__complete"}, strings.Fields(c.args)...)
		if out, err, code := run(t, r.socket, nil, args...); out != c.want || code != 0 {
			t.Errorf("%s: offers %q, says %q, exits with %d", c.args, out, err, code)
		}
		if out, _, code := run(t, "/nowhere", nil, args...); !strings.Contains(out, ":") || code != 0 {
			t.Errorf("%s without a daemon: offers %q, exits with %d", c.args, out, code)
		}
	}
}
