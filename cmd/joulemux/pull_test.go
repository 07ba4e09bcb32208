package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// pulled is an answer to "joulemux pull".
const pulled = `{"pull":{"model":"tiny","backend":"ollama-cpu","state":"pulling","status":"pulling manifest","network":"unknown","completed_bytes":0,"total_bytes":0,"bytes_per_second":0,"seconds_left":0}}
{"pull":{"model":"tiny","backend":"ollama-cpu","state":"pulling","status":"pulling 01","network":"unknown","completed_bytes":500000000,"total_bytes":1000000000,"bytes_per_second":10000000,"seconds_left":50}}
{"pull":{"model":"tiny","backend":"ollama-cpu","state":"pulling","status":"pulling 01","network":"unknown","completed_bytes":510000000,"total_bytes":1000000000,"bytes_per_second":10000000,"seconds_left":49}}
{"pull":{"model":"tiny","backend":"ollama-cpu","state":"paused","note":"the machine is on battery","status":"pulling 01","network":"unknown","completed_bytes":510000000,"total_bytes":1000000000,"bytes_per_second":0,"seconds_left":0}}
{"end":{"model":"tiny","backend":"ollama-cpu","bytes":1000000000}}
`

func TestPullShowsHowItGetsOn(t *testing.T) {
	t.Parallel()
	r := replay(t, answers{"POST pull": says(pulled)})
	out, said, code := run(t, r.socket, nil, "pull", "tiny", "--backend", "cpu", "--anyway", "--insecure")
	if code != 0 || out != "tiny is on ollama-cpu now, 1.0 GB\n" {
		t.Errorf("%d, %q", code, out)
	}
	want := []string{
		"nobody tells whether the network is metered (there is no NetworkManager, or it does not know)",
		"tiny on ollama-cpu: pulling, pulling manifest",
		"tiny on ollama-cpu: pulling 50 %, 500 MB of 1.0 GB, 10 MB/s, 51s left",
		"tiny on ollama-cpu: paused 51 %, 510 MB of 1.0 GB, the machine is on battery",
	}
	if got := strings.Split(strings.TrimSpace(said), "\n"); !slices.Equal(got, want) {
		t.Errorf("it said %q", got)
	}
	if asked := r.requests(); !slices.Equal(asked, []string{`POST /joulemux/v1/pull {"model":"tiny","backend":"cpu","anyway":true,"insecure":true}`}) {
		t.Errorf("it asked %q", asked)
	}
}

func TestPullAtATerminalHasOneLine(t *testing.T) {
	t.Parallel()
	r := replay(t, answers{"POST pull": says(strings.ReplaceAll(pulled, "unknown", "unmetered"))})
	term := startAtTerminal(t, r.socket, "pull", "tiny")
	if code := term.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	term.out.await(t, "now, 1.0 GB")
	if got := term.out.String(); strings.Count(got, "\n") != 2 || strings.Count(got, "\r") < 4 || !strings.Contains(got, "51 %, 510 MB of 1.0 GB, 10 MB/s") {
		t.Errorf("on the screen is %q", got)
	}
}

func TestPullInJSON(t *testing.T) {
	t.Parallel()
	r := replay(t, answers{"POST pull": says(pulled)})
	if out, said, code := run(t, r.socket, nil, "pull", "--json", "tiny"); code != 0 || out != pulled || said != "" {
		t.Errorf("%d, %q, %q", code, out, said)
	}
}

func TestPullThatFails(t *testing.T) {
	t.Parallel()
	first, _, _ := strings.Cut(pulled, "\n")
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		code   int
		says   string
	}{
		"on battery":      {refuses(409, wire.Error{Text: "power policy: the machine is on battery", Code: wire.CodePowerPolicy}), 5, "on battery"},
		"at 90 %":         {says(first + "\n" + `{"error":{"error":"backend failed: ollama-cpu: 403: denied, at 90 % of tiny","code":"backend_failed"}}` + "\n"), 1, "403: denied, at 90 % of tiny"},
		"no such model":   {refuses(404, wire.Error{Text: "model not found", Code: wire.CodeModelNotFound}), 4, "model not found"},
		"a broken answer": {says(first + "\n"), 1, "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := replay(t, answers{"POST pull": tt.answer})
			out, said, code := run(t, r.socket, nil, "pull", "tiny")
			if code != tt.code || out != "" || !strings.Contains(said, tt.says) {
				t.Errorf("%d, %q, %q", code, out, said)
			}
		})
	}
	if _, _, code := run(t, "/nowhere", nil, "pull"); code != 2 {
		t.Errorf("without a model: %d", code)
	}
}

func TestAJobTellsOfTheModelThatItWaitsFor(t *testing.T) {
	t.Parallel()
	first, _, _ := strings.Cut(pulled, "\n")
	r := replay(t, answers{"POST generate": says(first + "\n" + `{"text":"Hi"}` + "\n" + `{"end":{}}` + "\n")})
	out, said, code := run(t, r.socket, nil, "generate", "hello")
	if code != 0 || !strings.HasPrefix(out, "Hi") || !strings.Contains(said, "tiny on ollama-cpu: pulling") {
		t.Errorf("%d, %q, %q", code, out, said)
	}
}
