package httpapi_test

import (
	"bufio"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/daemon/token"
)

// Lines of a pull, in a backend's words.
const (
	manifestLine = `{"status":"pulling manifest"}` + "\n"
	layerLine    = `{"status":"pulling 0123456789ab","digest":"sha256:01","total":100,"completed":90}` + "\n"
	successLine  = `{"status":"success"}` + "\n"
	deniedLine   = `{"error":"403: denied"}` + "\n"
)

func allowing() httpapi.Settings { return httpapi.Settings{MaxBody: 4 << 20, AllowAdmin: true} }

func TestPullInOllamasDialect(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body   string
		answer []string
		status int
		want   []string // in the last lines of the answer
		asked  string
	}{
		"a whole one": {
			`{"model":"n"}`,
			[]string{manifestLine, layerLine, successLine},
			200,
			[]string{`{"status":"success"}`},
			`{"model":"n"`,
		},
		"by an older name, insecurely": {`{"name":"n","insecure":true}`, []string{successLine}, 200, []string{`{"status":"success"}`}, `{"model":"n","insecure":true`},
		"in one piece":                 {`{"model":"n","stream":false}`, []string{manifestLine, layerLine, successLine}, 200, []string{`{"status":"success"}`}, `{"model":"n"`},
		"one that fails at once":       {`{"model":"n","stream":false}`, []string{`{"error":"pull model manifest: file does not exist"}`}, 404, []string{`"code":"model_not_found"`}, `{"model":"n"`},
		"without a name":               {`{}`, nil, 400, []string{`"field":"model"`}, ""},
		"with what is no JSON":         {`pull`, nil, 400, []string{`"code":"invalid"`}, ""},
		"with an unknown member of ours": {
			`{"model":"n","joulemux":{"sideways":true}}`, nil, 400, []string{`unknown field`}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, _ := two(says(ndjson, tt.answer...))
			r := newRig(t, one)
			r.Configure(allowing())
			got := r.ask("POST", "/api/pull", tt.body)
			lines := strings.Split(strings.TrimSpace(got.body), "\n")
			// A client that is slower than the backend misses some, and not the last.
			if got.status != tt.status || len(lines) < len(tt.want) {
				t.Fatalf("got %+v", got)
			}
			lines = lines[len(lines)-len(tt.want):]
			for i, want := range tt.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %s, want %s in it", i, lines[i], want)
				}
			}
			asked := one.questions()
			if tt.asked == "" && len(asked) != 0 || tt.asked != "" && (len(asked) != 1 || !strings.HasPrefix(asked[0].body, tt.asked)) {
				t.Errorf("the backend was asked %q", asked)
			}
		})
	}
}

func TestPullThatFailsOnTheWayEndsInAnError(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}) // that it is on its way: who is slower would only hear of the end
	one, _ := two(func(w http.ResponseWriter, r *http.Request) {
		says(ndjson, layerLine, "")(w, r)
		select {
		case <-told:
			_, _ = io.WriteString(w, deniedLine)
		case <-r.Context().Done():
		}
	})
	r := newRig(t, one)
	r.Configure(allowing())
	resp := r.open(t.Context(), r.overUnix, "POST", "/api/pull", `{"model":"n"}`)
	defer resp.Body.Close()
	close(told)
	body, err := io.ReadAll(resp.Body)
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	e := read[wire.Error](t, lines[len(lines)-1])
	if resp.StatusCode != 200 || err != nil || e.Code != wire.CodeBackendFailed || !strings.Contains(e.Text, "403: denied, at 90 % of n") {
		t.Errorf("got %d %s, %v", resp.StatusCode, body, err)
	}
}

func TestPullInOurOwnDialect(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}) // that it is on its way: who is slower would only hear of the end
	one, _ := two(func(w http.ResponseWriter, r *http.Request) {
		says(ndjson, manifestLine, layerLine)(w, r)
		select {
		case <-told:
			_, _ = io.WriteString(w, successLine)
		case <-r.Context().Done():
		}
	})
	r := newRig(t, one)
	resp := r.open(t.Context(), r.overUnix, "POST", "/joulemux/v1/pull", `{"model":"n"}`) // by the socket, the user may
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	var pulling, last wire.Event
	for lines.Scan() {
		last = read[wire.Event](t, lines.Text())
		if p := last.Pull; p != nil && p.TotalBytes == 100 && pulling.Pull == nil {
			pulling = last
			close(told)
		}
	}
	if resp.StatusCode != 200 || lines.Err() != nil || last.End["backend"] != "one" || last.End["bytes"] != 90.0 {
		t.Errorf("got %d, at last %+v, %v", resp.StatusCode, last, lines.Err())
	}
	if p := pulling.Pull; p == nil || p.Model != "n" || p.State != "pulling" {
		t.Errorf("on its way: %+v", p)
	}
}

func TestWhoMayPull(t *testing.T) {
	t.Parallel()
	one, _ := two(says(ndjson, successLine))
	r := newRig(t, one)
	tcp := func(path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.addr+path, strings.NewReader(`{"model":"n"}`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.overTCP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for _, tt := range []struct {
		name                string
		settings            httpapi.Settings
		unix, tcp, byOllama int
	}{
		{"by default", httpapi.Settings{MaxBody: 1000}, 200, 403, 403},
		{"where clients administer", allowing(), 200, 200, 200},
		{"where jobs have models fetched", httpapi.Settings{MaxBody: 1000, AutoPull: true}, 200, 200, 200},
	} {
		r.Configure(tt.settings)
		if got := r.ask("POST", "/joulemux/v1/pull", `{"model":"n"}`).status; got != tt.unix {
			t.Errorf("%s, by the socket: %d, want %d", tt.name, got, tt.unix)
		}
		if got := tcp("/joulemux/v1/pull"); got != tt.tcp {
			t.Errorf("%s, by the port: %d, want %d", tt.name, got, tt.tcp)
		}
		if got := r.ask("POST", "/api/pull", `{"model":"n"}`).status; got != tt.byOllama {
			t.Errorf("%s, in Ollama's dialect: %d, want %d", tt.name, got, tt.byOllama)
		}
	}
}

func TestClientsHaveFetchedOnlyWhatTheUserWouldHave(t *testing.T) {
	t.Parallel()
	one, _ := two(says(ndjson, successLine))
	r := newRig(t, one)
	r.Configure(httpapi.Settings{MaxBody: 1000, AutoPull: true})
	for path, bodies := range map[string][]string{
		"/api/pull":         {`{"model":"n","insecure":true}`, `{"model":"n","joulemux":{"anyway":true}}`, `{"model":"192.168.1.1/x/y"}`},
		"/joulemux/v1/pull": {`{"model":"n","insecure":true}`, `{"model":"n","anyway":true}`, `{"model":"192.168.1.1/x/y"}`},
	} {
		for _, body := range bodies {
			if got := r.over(r.overTCP, "POST", path, body); got.status != 403 {
				t.Errorf("%s %s: %+v", path, body, got)
			}
		}
	}
	if asked := one.questions(); len(asked) != 0 {
		t.Errorf("the backend was asked %q", asked)
	}
	for _, body := range []string{`{"model":"n","insecure":true,"anyway":true}`, `{"model":"192.168.1.1/x/y"}`} {
		if got := r.ask("POST", "/joulemux/v1/pull", body); got.status != 200 {
			t.Errorf("the user's own %s: %+v", body, got)
		}
	}
}

func TestATokenForItPulls(t *testing.T) {
	t.Parallel()
	one, _ := two(says(ndjson, successLine))
	r := newRig(t, one)
	tokens := token.Open(filepath.Join(t.TempDir(), "tokens"))
	r.door.Configure(door.Settings{Tokens: tokens})
	for right, want := range map[token.Right]int{token.Admin: 200, token.Control: 403, token.Generate: 403, token.Metrics: 403} {
		secret, err := tokens.Create(token.Token{Name: string(right), Rights: []token.Right{right}})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/api/pull", "/joulemux/v1/pull"} {
			for _, c := range []*http.Client{r.overTCP, r.overUnix} {
				if got := r.over(c, "POST", path, `{"model":"n"}`, "Authorization: Bearer "+secret); got.status != want {
					t.Errorf("%s to %s: %+v", right, path, got)
				}
			}
		}
	}
}

// TestAPullInOnePieceMayTakeLongerThanAClientMayNotRead: mostly it takes minutes.
func TestAPullInOnePieceMayTakeLongerThanAClientMayNotRead(t *testing.T) {
	t.Parallel()
	one, _ := two(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * stalled):
			says(ndjson, successLine)(w, r)
		case <-r.Context().Done():
		}
	})
	r := newRig(t, one)
	r.SetStalled(stalled)
	r.Configure(allowing())
	if got := r.ask("POST", "/api/pull", `{"model":"n","stream":false}`); got.status != 200 || got.err != nil {
		t.Errorf("got %+v", got)
	}
}

func TestPullUnderConditionsThatForbidIt(t *testing.T) {
	t.Parallel()
	one, _ := two(says(ndjson, successLine))
	r := newRig(t, one)
	r.Configure(allowing())
	for _, c := range []pull.Conditions{{OnBattery: true}, {Network: pull.Metered}} {
		r.conditions.Publish(c)
		for path, anyway := range map[string]string{
			"/api/pull":         `{"model":"n","joulemux":{"anyway":true}}`,
			"/joulemux/v1/pull": `{"model":"n","anyway":true}`,
		} {
			got := r.ask("POST", path, `{"model":"n"}`)
			if got.status != 409 || read[wire.Error](t, got.body).Code != wire.CodePowerPolicy {
				t.Errorf("%s under %+v: %+v", path, c, got)
			}
			if got := r.ask("POST", path, anyway); got.status != 200 {
				t.Errorf("%s anyway: %+v", path, got)
			}
		}
	}
}

func TestModelThatIsNoneIsNotFound(t *testing.T) {
	t.Parallel()
	one, _ := two(says("application/json", `{}`))
	r := newRig(t, one)
	if got := r.ask("POST", "/joulemux/v1/pull", `{"model":"n","backend":"mars"}`); got.status != 404 || read[wire.Error](t, got.body).Code != wire.CodeBackendNotFound {
		t.Errorf("an unknown backend: %+v", got)
	}
	if got := r.ask("POST", "/joulemux/v1/pull", `{"model":"n","sideways":1}`); got.status != 400 {
		t.Errorf("an unknown member: %+v", got)
	}
	if got := newRig(t, frozen()).ask("POST", "/joulemux/v1/pull", `{"model":"n"}`); got.status != 503 {
		t.Errorf("without a backend: %+v", got)
	}
}
