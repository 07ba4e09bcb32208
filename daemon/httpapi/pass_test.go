package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

const (
	ndjson = "application/x-ndjson"
	inJSON = "application/json; charset=utf-8"
)

// The spacing of these is nobody's but theirs, so that it shows if somebody
// writes them anew.
const (
	firstLine = `{"response" :"Hé<>","done": false}` + "\n"
	lastLine  = `{"response":"" , "done":true, "eval_count":2,"eval_duration":1000000000}` + "\n"
	wholeBody = `{"response":"Hé<>" ,"done": true,"eval_count":2}`
	vectors   = `{"embeddings":[[0.10, -2e-3]] }`
)

func TestRequestAndAnswerPassByteForByte(t *testing.T) {
	for name, c := range map[string]struct {
		path, body, kind string
		pieces           []string
	}{
		"a stream of generate":          {"/api/generate", `{ "model":"m" , "prompt":"é\u00e9 <&>","x":1.0}`, ndjson, []string{firstLine, lastLine}},
		"an undivided generate":         {"/api/generate", `{"model":"m","prompt":"p","stream":false}`, inJSON, []string{wholeBody}},
		"a stream of chat":              {"/api/chat", `{"model":"m","messages":[{"role":"user","content":"joulemux"}]} `, ndjson, []string{firstLine + firstLine, lastLine}},
		"an undivided chat":             {"/api/chat", "{\"model\":\"m\",\n\"messages\":[],\"stream\":false}", inJSON, []string{wholeBody}},
		"an undivided one in pieces":    {"/api/chat", `{"model":"m","stream":false}`, inJSON, []string{wholeBody[:9], wholeBody[9:]}},
		"embed":                         {"/api/embed", `{"model":"m","input":["a","b"]}`, inJSON, []string{vectors}},
		"embeddings":                    {"/api/embeddings", `{"model":"m","prompt":"a"}`, inJSON, []string{`{"embedding":[0.10]}`}},
		"a last line without its end":   {"/api/generate", `{"model":"m"}`, ndjson, []string{firstLine, strings.TrimSpace(lastLine)}},
		"a member that is like our own": {"/api/generate", `{"Joulemux":{"class":"background"},"model":"m"}`, ndjson, []string{lastLine}},
	} {
		t.Run(name, func(t *testing.T) {
			o := with(says(c.kind, c.pieces...))
			r := newRig(t, o)
			for _, client := range []*http.Client{r.overUnix, r.overTCP} {
				got := r.over(client, "POST", c.path, c.body)
				asked := o.questions()
				if last := asked[len(asked)-1]; last != (question{"POST", c.path, c.body}) {
					t.Errorf("the backend was asked %q", last)
				}
				if got.err != nil || got.status != 200 || withoutReport(got.body, c.kind) != strings.Join(c.pieces, "") || got.header.Get("Content-Type") != c.kind {
					t.Errorf("the client got %+v", got)
				}
				if len(c.pieces) == 1 && c.kind == inJSON && got.header.Get("Content-Length") != fmt.Sprint(len(c.pieces[0])) {
					t.Errorf("the length is %q", got.header.Get("Content-Length"))
				}
			}
		})
	}
}

// spliced is the report at the end of a stream.
var spliced = regexp.MustCompile(`,"joulemux":\{.*\}(\}\n?)$`)

// withoutReport returns a stream as its backend wrote it, and any other answer
// as it is.
func withoutReport(body, kind string) string {
	if kind != ndjson {
		return body
	}
	return spliced.ReplaceAllString(body, "$1")
}

func TestTheReportStandsWhereItIsWanted(t *testing.T) {
	for name, c := range map[string]struct {
		body, kind, answer string
		inBody, inHeaders  bool
	}{
		"at the end of a stream":                {`{"model":"m"}`, ndjson, lastLine, true, true},
		"not if the client says so":             {`{"model":"m","joulemux":false}`, ndjson, lastLine, false, true},
		"not in an undivided answer":            {`{"model":"m","stream":false}`, inJSON, wholeBody, false, true},
		"unless the client says so":             {`{"model":"m","stream":false,"joulemux":true}`, inJSON, wholeBody, true, true},
		"headers go before the end of a stream": {`{"model":"m"}`, ndjson, firstLine + lastLine, true, false},
		"and what is too long to hold has none": {`{"model":"m","stream":false}`, inJSON, `{"response":"` + strings.Repeat("x", 1<<20) + `"}`, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with(says(c.kind, c.answer)))
			got := r.ask("POST", "/api/generate", c.body)
			if spliced.MatchString(got.body) != c.inBody {
				t.Errorf("the answer ends in %q", got.body[max(0, len(got.body)-200):])
			}
			if quality := got.header.Get("X-Energy-Quality"); (quality == "estimated") != c.inHeaders {
				t.Errorf("the quality in the headers is %q", quality)
			}
			if joules := got.header.Get("X-Energy-Joules"); (joules != "") != c.inHeaders {
				t.Errorf("the joules in the headers are %q", joules)
			}
		})
	}
	whole := newRig(t, with(says(inJSON, wholeBody))).ask("POST", "/api/generate", `{"model":"m","stream":false,"joulemux":true}`)
	report := read[struct{ Joulemux map[string]any }](t, whole.body).Joulemux
	for field, value := range report {
		if !strings.Contains(field, "energy") && field != "joules_per_token" || field == "estimated_energy_joules" {
			continue
		}
		name := strings.ReplaceAll("X-"+strings.Replace(field, "joules_per_token", "energy_joules_per_token", 1), "_", "-")
		if number, ok := value.(float64); ok {
			value = strconv.FormatFloat(number, 'f', -1, 64)
		}
		if got := whole.header.Get(name); got != value {
			t.Errorf("%s is %q, and the report has %v", name, got, value)
		}
	}
	if got := newRig(t, with(says(inJSON, wholeBody))).ask("POST", "/api/generate", `{"model":"m","joulemux":7}`); got.status != 400 {
		t.Errorf("a member that is a number: %+v", got)
	}
}

func TestOurMemberIsTakenOutAndTheReportComesWithTheLastLineAlone(t *testing.T) {
	for name, c := range map[string]struct {
		path, body, passed, kind string
		pieces                   []string
	}{
		"stream":    {"/api/generate", `{"model":"m", "joulemux":{"class":"interactive"}, "prompt":"p"}`, `{"model":"m", "prompt":"p"}`, ndjson, []string{firstLine, lastLine}},
		"undivided": {"/api/chat", `{"joulemux":{},"model":"m","stream":false}`, `{"model":"m","stream":false}`, inJSON, []string{wholeBody[:9], wholeBody[9:]}},
		"embed":     {"/api/embed", `{"model":"m","input":"a","joulemux":{}}`, `{"model":"m","input":"a"}`, inJSON, []string{vectors}},
	} {
		t.Run(name, func(t *testing.T) {
			o := with(says(c.kind, c.pieces...))
			r := newRig(t, o)
			got := r.ask("POST", c.path, c.body)
			if asked := o.questions(); len(asked) != 1 || asked[0].body != c.passed {
				t.Errorf("the backend was asked %q", asked)
			}
			whole := strings.Join(c.pieces, "")
			end := strings.LastIndexByte(whole, '}')
			rest, ok := strings.CutPrefix(got.body, whole[:end]+`,"joulemux":`)
			if !ok || !strings.HasSuffix(rest, whole[end:]) {
				t.Fatalf("the answer is %q", got.body)
			}
			own := read[map[string]any](t, strings.TrimSuffix(rest, whole[end:]))
			if own["backend_used"] != "one" && own["backend"] != "one" || own["model"] != "m" || own["energy_quality"] != "estimated" {
				t.Errorf("the report is %v", own)
			}
		})
	}
}

func TestTheOlderNameOfAModelIsTold(t *testing.T) {
	o := with(says(ndjson, lastLine))
	got := newRig(t, o).ask("POST", "/api/generate", `{"name":"m","prompt":"p"}`)
	if asked := o.questions(); got.status != 200 || len(asked) != 1 || asked[0].body != `{"model":"m","name":"m","prompt":"p"}` {
		t.Errorf("the backend was asked %q; got %+v", asked, got)
	}
}

func TestNoReportIsAddedToARefusal(t *testing.T) {
	refused := `{"error":"temperature must be a number"}`
	r := newRig(t, with(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", inJSON)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, refused)
	}))
	got := r.ask("POST", "/api/generate", `{"model":"m","joulemux":{}}`)
	if got.status != 400 || got.body != refused || got.header.Get("X-Backend-Used") != "one" {
		t.Errorf("got %+v", got)
	}
}

func TestABackendsFailureComesInItsOwnWords(t *testing.T) {
	r := newRig(t, with(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", inJSON)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"error":"server busy"}`)
	}))
	got := r.ask("POST", "/api/generate", `{"model":"m"}`)
	if got.status != 503 || got.body != `{"error":"server busy"}` || got.header.Get("Retry-After") == "" ||
		!strings.Contains(got.header.Get("X-Joulemux-Error"), "busy") || got.header.Get("X-Request-ID") == "" {
		t.Errorf("got %+v", got)
	}
}

func TestABackendThatOnlyFailsIsGivenARest(t *testing.T) {
	r := newRig(t, with(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	got := r.ask("POST", "/api/generate", `{"model":"m"}`)
	failed := 0
	for ; got.status == 500; failed++ { // on a slow machine a rest may be over before we are back
		got = r.ask("POST", "/api/generate", `{"model":"m"}`)
	}
	says := fmt.Sprintf("not healthy: circuit open after %d failures (last: backend failed: ", failed)
	if failed < 3 || got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, says) {
		t.Errorf("after %d failures got %+v", failed, got)
	}
}

func TestAnAnswerThatBreaksEndsInAnErrorAndAsBroken(t *testing.T) {
	dies := func(last string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, firstLine+last)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		script http.HandlerFunc
		body   string
		errors int
	}{
		"the backend dies in a stream":          {dies(""), `{"model":"m"}`, 1},
		"the backend dies in a line":            {dies(`{"resp`), `{"model":"m"}`, 1},
		"a stream ends without a last line":     {says(ndjson, firstLine), `{"model":"m"}`, 1},
		"the backend tells of its error itself": {says(ndjson, firstLine, `{"error":"out of memory"}`+"\n"), `{"model":"m"}`, 1},
		"the backend dies in an undivided one":  {dies(strings.Repeat(" ", 64<<10)), `{"model":"m","stream":false}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := newRig(t, with(c.script)).ask("POST", "/api/generate", c.body)
			if got.status != 200 || !errors.Is(got.err, io.ErrUnexpectedEOF) {
				t.Errorf("got %+v", got)
			}
			if !strings.HasPrefix(got.body, firstLine) || strings.Count(got.body, `"error":`) != c.errors {
				t.Errorf("the body is %q", got.body)
			}
			if c.errors > 0 {
				lines := strings.Split(strings.TrimSpace(got.body), "\n")
				if e := read[map[string]any](t, lines[len(lines)-1]); e["error"] == "" {
					t.Errorf("the last line is %v", e)
				}
			}
		})
	}
}

func TestAnUndividedAnswerThatBreaksEarlyIsAnErrorOfItsOwn(t *testing.T) {
	dies := func(length string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, wholeBody[:9])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		script http.HandlerFunc
		path   string
		body   string
	}{
		"generate":                  {dies(""), "/api/generate", `{"model":"m","stream":false}`},
		"chat":                      {dies(""), "/api/chat", `{"model":"m","stream":false}`},
		"embed":                     {dies(""), "/api/embed", `{"model":"m","input":"a"}`},
		"one of a length":           {dies("100"), "/api/chat", `{"model":"m","stream":false}`},
		"one that wants the report": {dies(""), "/api/chat", `{"model":"m","stream":false,"joulemux":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			other := with(says(inJSON, wholeBody))
			got := newRig(t, with(c.script), other).ask("POST", c.path, c.body)
			if e := read[wire.Error](t, got.body); got.err != nil || got.status != 502 || e.Code != wire.CodeBackendFailed || !strings.Contains(e.Text, "unexpected EOF") {
				t.Errorf("got %+v", got)
			}
			if got.header.Get("Content-Type") != inJSON || got.header.Get("X-Request-ID") == "" {
				t.Errorf("the header is %v", got.header)
			}
			if asked := other.questions(); len(asked) != 0 {
				t.Errorf("another backend was asked after the answer had begun: %q", asked)
			}
		})
	}
}

// endless answers with lines until its client is gone.
func endless(gone chan<- time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() { gone <- time.Now() }()
		control := http.NewResponseController(w)
		line := []byte(`{"response":"` + strings.Repeat("x", 8<<10) + `","done":false}` + "\n")
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
		}
	}
}

func TestAClientThatLeavesEndsTheBackendsWork(t *testing.T) {
	silent := func(asked chan<- struct{}, gone chan<- time.Time) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
			gone <- time.Now()
		}
	}
	t.Run("before the first token", func(t *testing.T) {
		asked, gone := make(chan struct{}), make(chan time.Time, 1)
		r := newRig(t, with(silent(asked, gone)))
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+r.addr+"/api/generate", strings.NewReader(`{"model":"m"}`))
		over := make(chan struct{})
		go func() {
			defer close(over)
			if resp, err := r.overUnix.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		wait(t, "the backend is asked", asked)
		left := time.Now()
		cancel()
		<-over
		soon(t, left, gone)
	})
	t.Run("in the middle of a stream", func(t *testing.T) {
		gone := make(chan time.Time, 1)
		r := newRig(t, with(endless(gone)))
		resp := r.open(t.Context(), r.overTCP, "POST", "/api/generate", `{"model":"m"}`)
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		left := time.Now()
		resp.Body.Close()
		soon(t, left, gone)
	})
}

// soon fails the test unless the backend was let go in time: 100 ms, and what a
// loaded machine adds to that. Whoever is not let go works on for good.
func soon(t *testing.T, left time.Time, gone <-chan time.Time) {
	t.Helper()
	select {
	case at := <-gone:
		t.Logf("the backend was let go after %v", at.Sub(left))
		if took := at.Sub(left); took > patience/2 {
			t.Errorf("the backend worked on for %v", took)
		}
	case <-time.After(patience):
		t.Fatal("the backend works on")
	}
}

func TestAReaderThatStopsReadingIsLeft(t *testing.T) {
	gone := make(chan time.Time, 1)
	r := newRig(t, with(endless(gone)))
	r.SetStalled(200 * time.Millisecond)
	conn := r.dial("/api/generate", `{"model":"m"}`)
	defer conn.Close()
	soon(t, time.Now(), gone)
}

func TestAReaderWhoTakesLittleByLittleHoldsUpNobodyForLong(t *testing.T) {
	gone := make(chan time.Time, 1)
	r := newRig(t, with(endless(gone)))
	r.SetSlow(300 * time.Millisecond)
	conn := r.dial("/api/generate", `{"model":"m"}`)
	defer conn.Close()
	asked := time.Now()
	go func() {
		for little := make([]byte, 1); ; {
			if _, err := conn.Read(little); err != nil {
				return
			}
		}
	}()
	soon(t, asked, gone)
}

// reporting tells what becomes of each job.
type reporting struct {
	httpapi.Runner
	over chan<- error
}

func (r reporting) Run(ctx context.Context, j job.Job, sink dispatch.Sink) error {
	err := r.Runner.Run(ctx, j, sink)
	r.over <- err
	return err
}

func TestAReaderThatStopsReadingIsLeftAtTheDeadline(t *testing.T) {
	for path, body := range map[string]string{
		"/api/generate":         `{"model":"m","joulemux":{"deadline_ms":300}}`,
		"/joulemux/v1/generate": `{"prompt":"p","options":{"model":"m","deadline_ms":300}}`,
	} {
		t.Run(path, func(t *testing.T) {
			gone := make(chan time.Time, 1)
			r := newRig(t, with(endless(gone)))
			r.SetStalled(time.Hour)
			over := make(chan error, 1)
			r.Runner = reporting{r.Runner, over}
			asked := time.Now()
			conn := r.dial(path, body)
			defer conn.Close()
			soon(t, asked, gone)
			select {
			case err := <-over:
				if !errors.Is(err, job.DeadlinePassed) {
					t.Errorf("the job ended with %v", err)
				}
			case <-time.After(patience):
				t.Error("the reader is waited for")
			}
		})
	}
}

func TestOneWhoOnlyAsksIsLeft(t *testing.T) {
	r := newRig(t)
	r.SetStalled(100 * time.Millisecond)
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	for err == nil {
		_, err = io.WriteString(conn, "GET /joulemux/v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server waits for its answers to be read")
	}
}

func TestAFailureThatTookLongIsToldAllTheSame(t *testing.T) {
	t.Parallel()
	r := newRig(t, with(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	r.SetStalled(stalled)
	if got := r.ask("POST", "/api/generate", `{"model":"m"}`, fmt.Sprint("X-Deadline-Ms: ", 2*stalled.Milliseconds())); got.status != 504 {
		t.Errorf("got %+v", got)
	}
}

func TestADeadlineOfOneAnswerDoesNotHitTheNext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := newRig(t, with(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "wait") {
			<-release
		}
		says(ndjson, firstLine, lastLine)(w, r)
	}))
	r.SetStalled(stalled)
	if got := r.ask("POST", "/api/generate", `{"model":"m"}`); got.err != nil {
		t.Fatal(got.err)
	}
	time.AfterFunc(2*stalled, func() { close(release) })
	if got := r.ask("POST", "/api/generate", `{"model":"m","prompt":"wait"}`); got.err != nil || withoutReport(got.body, ndjson) != firstLine+lastLine {
		t.Errorf("got %+v", got)
	}
}

// TestAStreamMayBeSilentForLongerThanAClientMayNotRead: over HTTP/2 a time to write
// in that has passed is the end, though nothing was being written.
func TestAStreamMayBeSilentForLongerThanAClientMayNotRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, with(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ndjson)
		for _, line := range []string{firstLine, lastLine} {
			select {
			case <-time.After(2 * stalled):
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, line)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	r.SetStalled(stalled)
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	overHTTP2 := &http.Client{Transport: &http.Transport{Protocols: h2}}
	t.Cleanup(overHTTP2.CloseIdleConnections)
	for name, c := range map[string]*http.Client{"HTTP/1.1": r.overTCP, "HTTP/2": overHTTP2} {
		if got := r.over(c, "POST", "/api/generate", `{"model":"m"}`); got.err != nil || withoutReport(got.body, ndjson) != firstLine+lastLine {
			t.Errorf("over %s: %+v", name, got)
		}
	}
}

func TestUnloadingReachesEveryBackendThatHoldsTheModel(t *testing.T) {
	done := says(inJSON, `{"done":true,"done_reason":"unload"}`)
	for name, c := range map[string]struct {
		path, body string
		asked      [3]int
		status     int
	}{
		"generate":                       {"/api/generate", `{"model":"m","keep_alive":0}`, [3]int{1, 0, 1}, 200},
		"chat with words of time":        {"/api/chat", `{"model":"m","messages":[],"keep_alive":"0s"}`, [3]int{1, 0, 1}, 200},
		"in other spellings":             {"/api/generate", `{"model":"m","Keep_Alive":-0.0e1}`, [3]int{1, 0, 1}, 200},
		"a model that is loaded nowhere": {"/api/generate", `{"model":"other","keep_alive":0}`, [3]int{0, 1, 0}, 200},
		"a model that is not there":      {"/api/generate", `{"model":"none","keep_alive":0}`, [3]int{}, 404},
		"no model":                       {"/api/generate", `{"keep_alive":0}`, [3]int{}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			servers := []*scriptedOllama{with(done), with(done), with(done)}
			servers[1].models, servers[1].resident = []string{"m:latest", "other"}, nil
			got := newRig(t, servers[0], servers[1], servers[2]).ask("POST", c.path, c.body)
			if got.status != c.status {
				t.Errorf("got %+v", got)
			}
			for i, s := range servers {
				asked := s.questions()
				if len(asked) != c.asked[i] || len(asked) > 0 && asked[0].body != c.body {
					t.Errorf("server %d was asked %q", i, asked)
				}
			}
		})
	}
}
