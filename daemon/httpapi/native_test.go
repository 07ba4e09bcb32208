package httpapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/power"
)

// stream is an answer of lines that is still coming.
type stream struct {
	t     testing.TB
	lines *bufio.Scanner
	leave context.CancelFunc
}

// follow begins to read an answer of lines.
func (r *rig) follow(c *http.Client, method, path, body string) *stream {
	r.t.Helper()
	ctx, leave := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(leave)
	resp := r.open(ctx, c, method, path, body)
	r.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != ndjson {
		r.t.Fatalf("%s: got %s of %q", path, resp.Status, resp.Header.Get("Content-Type"))
	}
	return &stream{r.t, bufio.NewScanner(resp.Body), leave}
}

// next decodes the next line.
func next[T any](s *stream) (v T) {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatalf("no more lines: %v", s.lines.Err())
	}
	return read[T](s.t, s.lines.Text())
}

// ended fails the test if there is more.
func (s *stream) ended() {
	s.t.Helper()
	if s.lines.Scan() || s.lines.Err() != nil {
		s.t.Errorf("there is more: %s %v", s.lines.Text(), s.lines.Err())
	}
}

func TestOurOwnRequestsAreAnsweredInEvents(t *testing.T) {
	for name, c := range map[string]struct{ path, body, line, backendPath, backendBody string }{
		"generate": {
			"/joulemux/v1/generate", `{"prompt":"p","options":{"model":"m","system":"s","max_tokens":5,"target":"one"}}`,
			`{"response":"Hé","done":false}`, "/api/generate", `"system":"s"`,
		},
		"chat": {
			"/joulemux/v1/chat", `{"messages":[{"role":"user","content":"c"}],"options":{"model":"m","temperature":0.5}}`,
			`{"message":{"content":"Hé"},"done":false}`, "/api/chat", `"content":"c"`,
		},
		"without a model": {
			"/joulemux/v1/generate", `{"prompt":"p"}`, `{"response":"Hé","done":false}`, "/api/generate", `"model":"m:latest"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := with(says(ndjson, c.line+"\n", lastLine))
			r := newRig(t, o)
			s := r.follow(r.overTCP, "POST", c.path, c.body)
			if e := next[wire.Event](s); e.Routed["backend_used"] != "one" {
				t.Errorf("routed: %+v", e)
			}
			if e := next[wire.Event](s); e.Text != "Hé" {
				t.Errorf("text: %+v", e)
			}
			if e := next[wire.Event](s); e.End["tokens_generated"] != 2.0 || e.End["tokens_per_second"] != 2.0 {
				t.Errorf("end: %+v", e)
			}
			s.ended()
			if asked := o.questions(); len(asked) != 1 || asked[0].path != c.backendPath || !strings.Contains(asked[0].body, c.backendBody) {
				t.Errorf("the backend was asked %q", asked)
			}
		})
	}
}

func TestAFallbackIsToldOfAsItHappens(t *testing.T) {
	busy := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	s := func(r *rig) *stream { return r.follow(r.overUnix, "POST", "/joulemux/v1/generate", `{"prompt":"p"}`) }
	one := s(newRig(t, with(busy), with(says(ndjson, lastLine))))
	for _, want := range []string{"one", "two"} {
		if e := next[wire.Event](one); e.Routed["backend_used"] != want {
			t.Errorf("got %+v, want %s", e, want)
		}
	}
	if e := next[wire.Event](one); e.End["backend_used"] != "two" || len(e.End["failed_attempts"].([]any)) != 1 {
		t.Errorf("got %+v", e)
	}
	both := s(newRig(t, with(busy)))
	next[wire.Event](both)
	if e := next[wire.Event](both); e.Error == nil || e.Error.Code != wire.CodeBackendFailed {
		t.Errorf("got %+v", e)
	}
	both.ended()
}

func TestOurOwnRequestsAreReadStrictly(t *testing.T) {
	r := newRig(t, with(says(ndjson, lastLine)))
	for _, c := range []struct {
		path, body  string
		status      int
		field, text string
	}{
		{"/joulemux/v1/generate", `{"prompt":""}`, 400, "prompt", "empty"},
		{"/joulemux/v1/generate", `{"promt":"p"}`, 400, "", `unknown field "promt"`},
		{"/joulemux/v1/generate", `{"prompt":5}`, 400, "prompt", "want a string"},
		{"/joulemux/v1/generate", `{"prompt":"p","options":{"max_token":5}}`, 400, "options.max_token", `did you mean "max_tokens"?`},
		{"/joulemux/v1/generate", `{"prompt":"p","options":{"max_tokens":"5"}}`, 400, "options.max_tokens", "want a number"},
		{"/joulemux/v1/generate", `{"prompt":"p","options":{"model":"none"}}`, 404, "", "none"},
		{"/joulemux/v1/chat", `{"messages":[]}`, 400, "messages", "none"},
		{"/joulemux/v1/chat", `{"messages":[{"role":"user"},{"role":"god"}]}`, 400, "messages[1].role", `"god"`},
		{"/joulemux/v1/hold", `{"tier":"warm"}`, 400, "tier", `: tier: "warm" is none of`},
		{"/joulemux/v1/hold", `{"tier":"unknown"}`, 400, "tier", `"unknown"`},
		{"/joulemux/v1/hold", `{"tier":"low","reason":"` + strings.Repeat("x", 257) + `"}`, 400, "reason", "257 bytes"},
		{"/joulemux/v1/hold", `null`, 400, "", "JSON object"},
	} {
		got := r.ask("POST", c.path, c.body)
		if e := read[wire.Error](t, got.body); got.status != c.status || c.field != "" && e.Field != c.field || !strings.Contains(e.Text, c.text) {
			t.Errorf("%s %s: got %d %s", c.path, c.body, got.status, got.body)
		}
	}
}

// holds returns what is held now.
func (r *rig) holds() []power.Hold { return r.tiers.Current().Holds }

// until waits for the tiers to be so.
func (r *rig) until(what string, so func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for range r.tiers.Watch(ctx) {
		if so() {
			return
		}
	}
	r.t.Fatalf("never %s", what)
}

func TestAHoldLastsAsLongAsItsConnection(t *testing.T) {
	r := newRig(t)
	s := r.follow(r.overUnix, "POST", "/joulemux/v1/hold", `{"tier":"low","reason":"a flight"}`)
	h := next[wire.Held](s)
	if h.Tier != "low" || h.Reason != "a flight" || !strings.HasPrefix(h.Holder, "pid ") || h.Cookie == 0 || h.Released {
		t.Errorf("got %+v", h)
	}
	if now := r.tiers.Current(); now.Tier != power.Low || len(now.Holds) != 1 {
		t.Errorf("the tier is %v, the holds %v", now.Tier, now.Holds)
	}
	if st := read[wire.Status](t, r.ask("GET", "/joulemux/v1/status", "").body); len(st.Holds) != 1 || st.Holds[0].Cookie != h.Cookie {
		t.Errorf("the status is %+v", st)
	}
	s.leave()
	r.until("released", func() bool { return len(r.holds()) == 0 })
	if h := next[wire.Held](r.follow(r.overTCP, "POST", "/joulemux/v1/hold", `{"tier":"saver"}`)); h.Holder != "a client of the HTTP port" {
		t.Errorf("got %+v", h)
	}
}

func TestAHoldThatThePolicyEndsIsToldSo(t *testing.T) {
	r := newRig(t)
	s := r.follow(r.overUnix, "POST", "/joulemux/v1/hold", `{"tier":"saver","reason":"why"}`)
	first := next[wire.Held](s)
	if got := r.ask("PUT", "/joulemux/v1/policy", `{"policy":"balanced"}`); got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	first.Released = true
	if last := next[wire.Held](s); last != first {
		t.Errorf("got %+v, want %+v", last, first)
	}
	s.ended()
}

func TestTooManyHoldsAreBusy(t *testing.T) {
	r := newRig(t)
	for i := 0; ; i++ {
		if _, err := r.tiers.Hold(t.Context(), power.Hold{Tier: power.Low}); err != nil {
			break
		}
		if i > 10000 {
			t.Fatal("there is no end of holds")
		}
	}
	if got := r.ask("POST", "/joulemux/v1/hold", `{"tier":"low"}`); got.status != 429 || read[wire.Error](t, got.body).Code != wire.CodeBusy {
		t.Errorf("got %+v", got)
	}
}

// unkept are tiers whose preference cannot be written down.
type unkept struct{ httpapi.Tiers }

func (unkept) Prefer(context.Context, power.Preference) error { return fs.ErrPermission }

func TestAPolicyThatCannotBeKeptIsNoBackendsFault(t *testing.T) {
	r := newRig(t)
	r.Tiers = unkept{r.Tiers}
	got := r.ask("PUT", "/joulemux/v1/policy", `{"policy":"saver"}`)
	if e := read[wire.Error](t, got.body); got.status != 500 || e.Code != wire.CodeInternal || e.Text != "the policy cannot be kept: permission denied" {
		t.Errorf("got %+v", got)
	}
}

func TestThePolicyIsReadAndChanged(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"GET", "", 200, `{"policy":"auto"}`},
		{"PUT", `{"policy":"saver"}`, 200, `{"policy":"saver"}`},
		{"PUT", `{"policy":"turbo"}`, 400, `"field":"policy"`},
		{"PUT", `{"polcy":"auto"}`, 400, `unknown field`},
		{"PUT", ``, 400, `empty`},
		{"GET", "", 200, `{"policy":"saver"}`},
	} {
		if got := r.ask(c.method, "/joulemux/v1/policy", c.body); got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: got %d %s", c.method, c.body, got.status, got.body)
		}
	}
}

func TestTheStatusIsToldOnceOrWithEachChange(t *testing.T) {
	r := newRig(t, with(nil))
	once := read[wire.Status](t, r.ask("GET", "/joulemux/v1/status", "").body)
	if once.Version != "1-test" || once.Tier != "unknown" || once.Policy != "auto" || once.ActiveBackend != "one" || once.ActiveReason == "" ||
		once.DrawWatts == nil || *once.DrawWatts != 9 || len(once.Backends) != 1 || once.Holds == nil || once.Running != 0 {
		t.Errorf("got %+v", once)
	}
	s := r.follow(r.overTCP, "GET", "/joulemux/v1/status?watch", "")
	if now := next[wire.Status](s); now.Tier != "unknown" {
		t.Errorf("got %+v", now)
	}
	if err := r.tiers.Prefer(t.Context(), power.PreferSaver); err != nil {
		t.Fatal(err)
	}
	for now := next[wire.Status](s); now.Policy != "saver" || now.Tier != "saver"; now = next[wire.Status](s) {
		if now.Policy == "saver" {
			t.Fatalf("got %+v", now)
		}
	}
	r.backends.Configure(nil)
	for now := next[wire.Status](s); len(now.Backends) != 0 || now.ActiveBackend != ""; now = next[wire.Status](s) {
		if len(now.Backends) == 0 {
			t.Fatalf("got %+v", now)
		}
	}
}

func TestALookIsNoChangeOfTheStatus(t *testing.T) {
	r := newRig(t, with(nil))
	s := r.follow(r.overUnix, "GET", "/joulemux/v1/status?watch", "") // has the backend looked at
	last := next[wire.Status](s)
	r.ask("GET", "/joulemux/v1/status", "")
	if err := r.tiers.Prefer(t.Context(), power.PreferSaver); err != nil {
		t.Fatal(err)
	}
	for last.Policy != "saver" {
		now := next[wire.Status](s)
		if reflect.DeepEqual(now, last) {
			t.Fatalf("twice the same: %+v", now)
		}
		last = now
	}
}

func TestAnswersEndWhenTheServerStops(t *testing.T) {
	ended := make(chan struct{})
	t.Run("a server", func(t *testing.T) {
		r := newRig(t, with(endless(make(chan time.Time, 1))))
		conn := r.dial("/api/generate", `{"model":"m"}`)
		begun := make(chan struct{})
		go func() {
			defer close(ended)
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
			close(begun)
			_, _ = io.Copy(io.Discard, conn)
		}()
		wait(t, "the answer begins", begun)
	})
	wait(t, "the answer ends", ended)
}

func TestWhatIsWrittenIsForPeopleToRead(t *testing.T) {
	r := newRig(t)
	got := r.ask("POST", "/joulemux/v1/hold", `{"tier":"<é>"}`)
	if !strings.Contains(got.body, `<é>`) || !json.Valid([]byte(got.body)) {
		t.Errorf("got %s", got.body)
	}
}
