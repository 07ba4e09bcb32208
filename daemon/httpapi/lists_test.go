package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

// frozen is a server that is none.
func frozen() http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

// two returns servers that share the model m, each with one more.
func two(script http.HandlerFunc) (one, other *scriptedOllama) {
	one = &scriptedOllama{version: "0.17.4", models: []string{"m:latest", "a:1b"}, resident: []string{"m:latest"}, script: script}
	other = &scriptedOllama{version: "0.9.6", models: []string{"b:1b", "m"}, resident: []string{"b:1b", "m"}, script: script}
	return one, other
}

func TestListsAreThoseOfAllHealthyBackends(t *testing.T) {
	one, other := two(nil)
	r := newRig(t, one, frozen(), other)
	fit := func(backend, verdict, reason string) string {
		return fmt.Sprintf(`{"backend":%q,"verdict":%q,"reason":%q}`, backend, verdict, reason)
	}
	const nobody = "nobody tells how much memory there is"
	unknown := "[" + fit("one", "unknown", nobody) + "," + fit("three", "unknown", nobody) + "]"
	for path, want := range map[string]string{
		"/api/tags":    listing([]string{"m:latest", "a:1b", "b:1b"}),
		"/api/ps":      listing([]string{"m:latest", "b:1b", "m"}),
		"/api/version": `{"version":"0.9.6"}`,
		"/version":     `{"version":"1-test"}`,
		"/joulemux/v1/models": `{"models":[` +
			`{"name":"a:1b","names":["a:1b"],"digest":"d-a:1b","size_bytes":7,"backends":["one"],"resident":[],"places":[{"backend":"one","name":"a:1b","resident":false}],"fits":` + unknown + `},` +
			`{"name":"b:1b","names":["b:1b"],"digest":"d-b:1b","size_bytes":7,"backends":["three"],"resident":["three"],"places":[{"backend":"three","name":"b:1b","resident":true}],"fits":` + unknown + `},` +
			`{"name":"m:latest","names":["m:latest"],"digest":"d-m:latest","size_bytes":7,"backends":["one","three"],"resident":["one","three"],"places":[` +
			`{"backend":"one","name":"m:latest","resident":true},{"backend":"three","name":"m","resident":true}],"fits":` + unknown + `}]}`,
	} {
		// Nothing of an entry is lost, only the space between what is in it.
		if got := r.ask("GET", path, ""); got.status != 200 || strings.TrimSpace(got.body) != strings.ReplaceAll(want, "[1, 2]", "[1,2]") {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
}

func TestModelsOfSomebodyElsesServerAreNotThere(t *testing.T) {
	o := with(says(inJSON, wholeChat))
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/tags" {
			_, _ = io.WriteString(w, `{"models":[{"name":"m:latest","digest":"d"},{"name":"c:cloud","remote_model":"c","remote_host":"https://ollama.com:443","digest":"e"}]}`)
			return
		}
		o.ServeHTTP(w, r)
	}))
	for _, path := range []string{"/api/tags", "/v1/models", "/joulemux/v1/models"} {
		if got := r.ask("GET", path, ""); !strings.Contains(got.body, "m:latest") || strings.Contains(got.body, "cloud") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	if got := r.ask("POST", "/v1/chat/completions", `{"model":"c:cloud","messages":[]}`); got.status != 404 || len(jobs(o)) > 0 {
		t.Errorf("a job gets %d %s", got.status, got.body)
	}
}

func TestListsAreEmptyWithoutBackends(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"/api/tags": `{"models":[]}`, "/api/ps": `{"models":[]}`, "/joulemux/v1/models": `{"models":[]}`, "/backends": `{"backends":[]}`,
	} {
		if got := r.ask("GET", path, ""); got.status != 200 || strings.TrimSpace(got.body) != want {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	if got := r.ask("GET", "/api/version", ""); got.status != 503 {
		t.Errorf("/api/version: got %+v", got)
	}
}

func TestTheLowestVersionCounts(t *testing.T) {
	for _, versions := range [][2]string{{"0.9.6", "0.17.4"}, {"0.17", "0.17.4"}, {"0.17.3", "0.17.4-rc1"}, {"0.17.4", "1.0"}} {
		for _, order := range [][2]string{versions, {versions[1], versions[0]}} {
			r := newRig(t, &scriptedOllama{version: order[0]}, &scriptedOllama{version: order[1]})
			if got := read[map[string]string](t, r.ask("GET", "/api/version", "").body)["version"]; got != versions[0] {
				t.Errorf("of %v, got %s", order, got)
			}
		}
	}
}

func TestShowAsksABackendThatHasTheModel(t *testing.T) {
	one, other := two(says(inJSON, `{"license" : "none"}`))
	r := newRig(t, one, other)
	for _, body := range []string{`{"model":"b:1b"}`, `{ "name":"b:1b","verbose":true}`} {
		got := r.ask("POST", "/api/show", body)
		asked := other.questions()
		if got.status != 200 || got.body != `{"license" : "none"}` || got.header.Get("X-Backend-Used") != "two" ||
			asked[len(asked)-1] != (question{"POST", "/api/show", body}) {
			t.Errorf("%s: got %+v, asked was %q", body, got, asked)
		}
	}
	for body, want := range map[string]int{`{"model":"none"}`: 404, `{}`: 400, `{`: 400} {
		if got := r.ask("POST", "/api/show", body); got.status != want {
			t.Errorf("%s: got %+v", body, got)
		}
	}
	if asked := one.questions(); len(asked) != 0 {
		t.Errorf("the other backend was asked %q", asked)
	}
}

func TestAModelWhoseBackendIsDownIsNotOneThatIsNotThere(t *testing.T) {
	r := newRig(t, with(nil), &scriptedOllama{models: []string{"b:1b"}})
	r.ask("GET", "/api/tags", "")
	r.backends.Failed("two", &job.Error{Code: job.BackendFailed, Err: io.ErrUnexpectedEOF})
	got := r.ask("POST", "/api/show", `{"model":"b:1b"}`)
	if e := read[wire.Error](t, got.body); got.status != 503 || e.Code != wire.CodeNoBackend || e.Refused["two"] != "not healthy: unexpected EOF" {
		t.Errorf("got %+v", got)
	}
}

func TestAnAnswerThatIsForwardedEndsAsItsBackendsDoes(t *testing.T) {
	r := newRig(t, with(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	if got := r.ask("POST", "/api/show", `{"model":"m"}`); got.err == nil || got.body != "begin" {
		t.Errorf("got %+v", got)
	}
}

func TestAnEmptyAnswerThatTookLongArrives(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := newRig(t, with(func(http.ResponseWriter, *http.Request) { <-release }))
	r.SetStalled(stalled)
	time.AfterFunc(2*stalled, func() { close(release) })
	if got := r.ask("POST", "/api/show", `{"model":"m"}`); got.status != 200 || got.body != "" {
		t.Errorf("got %+v", got)
	}
}

func TestModelsAreChangedOnlyIfThatIsAllowed(t *testing.T) {
	requests := []question{
		{"POST", "/api/push", `{"model":"n"}`},
		{"POST", "/api/create", `{"model":"n","from":"m"}`},
		{"POST", "/api/copy", `{"source":"m","destination":"n"}`},
		{"DELETE", "/api/delete", `{"model":"m"}`},
		{"POST", "/api/blobs/sha256:00", "\xff\x00"},
		{"HEAD", "/api/blobs/sha256:00", ""},
	}
	one, other := two(says(ndjson, `{"status":"pulling"}`+"\n", `{"status":"success"}`+"\n"))
	r := newRig(t, one, other)
	for _, q := range requests {
		if got := r.ask(q.method, q.path, q.body); got.status != 403 || q.method != "HEAD" && !strings.Contains(got.body, "allow_admin") {
			t.Errorf("%v: got %+v", q, got)
		}
	}
	if asked := slices.Concat(one.questions(), other.questions()); len(asked) != 0 {
		t.Errorf("the backends were asked %q", asked)
	}
	r.Configure(httpapi.Settings{MaxBody: 1, AllowAdmin: true})
	for _, q := range requests {
		if got := r.ask(q.method, q.path, q.body, "X-Target-Backend: two"); got.status != 200 || got.header.Get("X-Backend-Used") != "two" {
			t.Errorf("%v: got %+v", q, got)
		}
	}
	if asked := other.questions(); !slices.Equal(asked, requests) {
		t.Errorf("the backend was asked %q", asked)
	}
	if got := r.ask("POST", "/api/push", `{}`); got.status != 200 || got.header.Get("X-Backend-Used") != "one" {
		t.Errorf("without a target: got %+v", got)
	}
	if got := r.ask("POST", "/api/push", `{}`, "X-Target-Backend: mars"); got.status != 404 || read[wire.Error](t, got.body).Field != "X-Target-Backend" {
		t.Errorf("with an unknown target: got %+v", got)
	}
	if got := newRig(t, frozen()).ask("POST", "/api/push", `{}`); got.status != 403 {
		t.Errorf("without a backend: got %+v", got)
	}
}

func TestAnUploadThatIsRefusedOnTheWayIsToldSo(t *testing.T) {
	others := with(nil)
	r := newRig(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !strings.HasPrefix(q.URL.Path, "/api/blobs/") {
			others.ServeHTTP(w, q)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusInsufficientStorage)
		_, _ = io.WriteString(w, `{"error":"no room"}`)
	}))
	r.Configure(httpapi.Settings{AllowAdmin: true})
	conn := r.dialFor("/api/blobs/sha256:00", 100_000, strings.Repeat("x", 9_000)) // the rest would be on its way yet
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusInsufficientStorage || string(body) != `{"error":"no room"}` || err != nil {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
}

func TestARefusalOfWhatWasReadKeepsTheConnection(t *testing.T) {
	r := newRig(t, with(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		w.WriteHeader(http.StatusNotFound)
	}))
	r.Configure(httpapi.Settings{AllowAdmin: true})
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(conn)
	for _, q := range []question{
		{"HEAD", "/api/blobs/sha256:00", ""},
		{"DELETE", "/api/delete", `{"model":"m"}`},
		{"POST", "/api/blobs/sha256:00", strings.Repeat("x", 300_000)},
		{"POST", "/api/copy", `{"source":"m","destination":"n"}`},
	} {
		asked, err := http.NewRequestWithContext(t.Context(), q.method, "http://x"+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := asked.Write(conn); err != nil {
			t.Fatalf("before %s %s: %v", q.method, q.path, err)
		}
		resp, err := http.ReadResponse(answers, asked)
		if err != nil {
			t.Fatalf("%s %s: %v", q.method, q.path, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusNotFound || resp.Close || err != nil {
			t.Errorf("%s %s: %d, closed %v, %v", q.method, q.path, resp.StatusCode, resp.Close, err)
		}
		_ = resp.Body.Close()
	}
}

func TestHealthSumsUpTheBackends(t *testing.T) {
	for name, c := range map[string]struct {
		servers []http.Handler
		status  int
		health  string
		ready   int
	}{
		"all are healthy":  {[]http.Handler{with(nil), with(nil)}, 200, "healthy", 200},
		"some are healthy": {[]http.Handler{with(nil), frozen()}, 200, "degraded", 200},
		"none is healthy":  {[]http.Handler{frozen()}, 503, "unhealthy", 503},
		"there is none":    {nil, 503, "unhealthy", 503},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.servers...)
			got := r.ask("GET", "/health", "")
			h := read[wire.Health](t, got.body)
			if got.status != c.status || h.Status != c.health || len(h.BackendHealth) != len(c.servers) || h.TimestampUnix == 0 {
				t.Errorf("got %+v", got)
			}
			text := r.ask("GET", "/health", "", "Accept: text/plain")
			if text.status != c.status || !strings.HasPrefix(text.body, "joulemux  "+c.health+"\n") || strings.Count(text.body, "\n") != 1+len(c.servers) {
				t.Errorf("got %+v", text)
			}
			if got := r.ask("GET", "/readyz", ""); got.status != c.ready {
				t.Errorf("readyz: got %+v", got)
			}
			if got := r.ask("GET", "/healthz", ""); got.status != 200 {
				t.Errorf("healthz: got %+v", got)
			}
		})
	}
}

func TestBackendsAreListedForProgramsAndForPeople(t *testing.T) {
	r := newRig(t, with(says(ndjson, lastLine)), frozen())
	if got := r.ask("POST", "/api/generate", `{"model":"m"}`); got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	for _, path := range []string{"/backends", "/joulemux/v1/backends"} {
		list := read[wire.Backends](t, r.ask("GET", path, "", "Accept: text/plain, application/json").body).Backends
		if len(list) != 2 {
			t.Fatalf("%s: got %+v", path, list)
		}
		one, other := list[0], list[1]
		if one.ID != "one" || one.Name != "one" || one.Hardware != "igpu" || one.Status.State != "healthy" || one.Metrics.PowerWatts != 12 || one.Capabilities.MaxContext != 4096 ||
			one.Metrics.PowerQuality != "estimated" || one.Metrics.RequestsPerMinute != 1 || !slices.Equal(one.Metrics.LoadedModels, []string{"m:latest"}) {
			t.Errorf("%s: got %+v", path, one)
		}
		if other.Status.State != "unhealthy" || other.Status.Message == "" || other.Metrics.LoadedModels == nil || other.Capabilities.Models == nil {
			t.Errorf("%s: got %+v", path, other)
		}
	}
	text := r.ask("GET", "/backends", "", "Accept: text/plain")
	lines := strings.Split(strings.TrimSpace(text.body), "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "ID HARDWARE STATE WATTS MODELS LOADED MESSAGE" ||
		strings.Join(strings.Fields(lines[1]), " ") != "one igpu healthy 12.0 (estimated) 1 m:latest" || text.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %+v", text)
	}
}
