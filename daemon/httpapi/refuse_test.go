package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
)

func TestEveryCodeHasItsStatus(t *testing.T) {
	for code, want := range map[job.Code]struct {
		status int
		word   string
	}{
		job.Invalid:          {400, wire.CodeInvalid},
		job.PromptTooLarge:   {413, wire.CodePromptTooLarge},
		job.ModelNotFound:    {404, wire.CodeModelNotFound},
		job.BackendNotFound:  {404, wire.CodeBackendNotFound},
		job.PipelineNotFound: {404, wire.CodePipelineNotFound},
		job.NoBackend:        {503, wire.CodeNoBackend},
		job.PowerPolicy:      {409, wire.CodePowerPolicy},
		job.Busy:             {429, wire.CodeBusy},
		job.Cancelled:        {499, wire.CodeCancelled},
		job.DeadlinePassed:   {504, wire.CodeDeadlinePassed},
		job.BackendFailed:    {502, wire.CodeBackendFailed},
		job.Forbidden:        {403, wire.CodeForbidden},
		job.Unauthenticated:  {401, wire.CodeUnauthenticated},
		job.OverLimit:        {429, wire.CodeOverLimit},
		job.Stopping:         {503, wire.CodeStopping},
		"another":            {500, wire.CodeInternal},
	} {
		if status, word := httpapi.StatusOf(code); status != want.status || word != want.word {
			t.Errorf("%s is %d %s, want %d %s", code, status, word, want.status, want.word)
		}
	}
}

func TestABadRequestIsToldWhatIsWrong(t *testing.T) {
	r := newRig(t, with(says(ndjson, firstLine, lastLine)))
	r.Configure(httpapi.Settings{MaxBody: 2000})
	settings := dispatch.DefaultSettings()
	settings.MaxPrompt = 500
	r.dispatch.Configure(settings)
	for name, c := range map[string]struct {
		body, header string
		status       int
		code, field  string
		text         string // that the error has in it
	}{
		"broken JSON":               {`{"model":"m",}`, "", 400, wire.CodeInvalid, "", "byte 14"},
		"half a JSON":               {`{"model":"m"`, "", 400, wire.CodeInvalid, "", "byte 12"},
		"nothing":                   {"", "", 400, wire.CodeInvalid, "", "empty"},
		"white space":               {" \n", "", 400, wire.CodeInvalid, "", "empty"},
		"null":                      {" null", "", 400, wire.CodeInvalid, "", "JSON object"},
		"a list":                    {"[1]", "", 400, wire.CodeInvalid, "", "want a JSON object, got array"},
		"no UTF-8":                  {"{\"model\":\"m\xff\"}", "", 400, wire.CodeInvalid, "", "byte 11"},
		"a field of another kind":   {`{"model":"m","stream":"yes"}`, "", 400, wire.CodeInvalid, "stream", "want true or false, got string"},
		"an option of another kind": {`{"model":"m","options":{"num_predict":"5"}}`, "", 400, wire.CodeInvalid, "options.num_predict", "want a number"},
		"a time that is none":       {`{"model":"m","keep_alive":"soon"}`, "", 400, wire.CodeInvalid, "keep_alive", "soon"},
		"a body that is too long":   {`{"model":"m","x":"` + strings.Repeat("x", 2000) + `"}`, "", 413, wire.CodePromptTooLarge, "", "2000 bytes"},
		"a prompt that is too long": {`{"model":"m","prompt":"` + strings.Repeat("x", 501) + `"}`, "", 413, wire.CodePromptTooLarge, "", "501 bytes"},
		"an unknown model":          {`{"model":"nobody"}`, "", 404, wire.CodeModelNotFound, "", "m:latest"},
		"an unknown target":         {`{"model":"m","joulemux":{"target":"mars"}}`, "", 404, wire.CodeBackendNotFound, "", "mars"},
		"an unknown annotation":     {`{"model":"m","joulemux":{"tarmet":"one"}}`, "", 400, wire.CodeInvalid, "joulemux.tarmet", `did you mean "target"?`},
		"an annotation of its kind": {`{"model":"m","joulemux":{"class":5}}`, "", 400, wire.CodeInvalid, "joulemux.class", "want a string"},
		"our member is no object":   {`{"model":"m","joulemux":[]}`, "", 400, wire.CodeInvalid, "joulemux", "want a JSON object"},
		"a limit below all draws":   {`{"model":"m"}`, "X-Max-Power-Watts: 1", 503, wire.CodeNoBackend, "", "max_power_watts"},
		"a header without a number": {`{"model":"m"}`, "X-Max-Latency-Ms: soon", 400, wire.CodeInvalid, "X-Max-Latency-Ms", `"soon"`},
		"a header that is NaN":      {`{"model":"m"}`, "X-Max-Power-Watts: NaN", 400, wire.CodeInvalid, "X-Max-Power-Watts", `"NaN"`},
		"a header with a fraction":  {`{"model":"m"}`, "X-Deadline-Ms: 1.5", 400, wire.CodeInvalid, "X-Deadline-Ms", "whole number"},
		"a header below zero":       {`{"model":"m"}`, "X-Max-Latency-Ms: -1", 400, wire.CodeInvalid, "X-Max-Latency-Ms", "from 0"},
		"a header without a flag":   {`{"model":"m"}`, "X-Latency-Critical: perhaps", 400, wire.CodeInvalid, "X-Latency-Critical", "true or false"},
		"a header without a class":  {`{"model":"m"}`, "X-Priority: urgent", 400, wire.CodeInvalid, "X-Priority", "interactive"},
		"a header without an id":    {`{"model":"m"}`, "X-Request-ID: two words", 400, wire.CodeInvalid, "X-Request-ID", "printable"},
		"an id that is too long":    {`{"model":"m"}`, "X-Request-ID: " + strings.Repeat("x", 129), 400, wire.CodeInvalid, "X-Request-ID", "128"},
		"a header with a target":    {`{"model":"m"}`, "X-Target-Backend: mars", 404, wire.CodeBackendNotFound, "", "mars"},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = []string{c.header}
			}
			got := r.ask("POST", "/api/chat", c.body, headers...)
			e := read[wire.Error](t, got.body)
			if got.status != c.status || e.Code != c.code || !strings.Contains(e.Text, c.text) || c.field != "" && e.Field != c.field {
				t.Errorf("got %d %s", got.status, got.body)
			}
			if got.header.Get("Content-Type") != inJSON {
				t.Errorf("the type is %q", got.header.Get("Content-Type"))
			}
		})
	}
}

func TestAHeaderThatIsThereTwiceIsRefused(t *testing.T) {
	r := newRig(t, with(says(ndjson, lastLine)))
	for _, path := range []string{"/api/chat", "/joulemux/v1/chat"} {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		body := `{"messages":[{"role":"user","content":"p"}]}`
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.0\r\nX-Max-Power-Watts: 500\r\nx-max-power-watts: 1\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		got, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(got), " 400 ") || !strings.Contains(string(got), `"field":"X-Max-Power-Watts"`) {
			t.Errorf("%s: got %s, %v", path, got, err)
		}
	}
}

func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	r := newRig(t, with(says(ndjson, lastLine)))
	r.SetArriving(100 * time.Millisecond)
	for name, c := range map[string]struct{ head, answer string }{
		"of a job":               {"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n", "400 Bad Request"},
		"to no path":             {"POST /nothing HTTP/1.1\r\nHost: localhost\r\n", "404 Not Found"},
		"by the wrong method":    {"PUT /api/chat HTTP/1.1\r\nHost: localhost\r\n", "405 Method Not Allowed"},
		"where there is none":    {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "200 OK"},
		"from a foreign page":    {"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.example\r\n", "403 Forbidden"},
		"of what is not allowed": {"POST /api/pull HTTP/1.1\r\nHost: localhost\r\n", "403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(conn, c.head+"Content-Length: 100\r\n\r\n{"); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 "+c.answer) {
				t.Errorf("got %q, %v", got, err)
			}
			if c.answer == "400 Bad Request" && !strings.Contains(string(got), "has not arrived within 100ms") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestHeadersSteerAJobAndTellWhereItWent(t *testing.T) {
	r := newRig(t, with(says(ndjson, lastLine)), with(says(ndjson, lastLine)))
	for _, header := range []string{"X-Target-Backend: two", "X-Target-Backend: cpu"} {
		got := r.ask("POST", "/api/generate", `{"model":"m"}`, header, "X-Request-ID: mine-7",
			"X-Latency-Critical: Yes", "X-Power-Efficient: 0", "X-Priority: Interactive", "X-Deadline-Ms: 60000", "X-Cache-Enabled: off", "X-Max-Latency-Ms: 60000")
		for name, want := range map[string]string{
			"X-Backend-Used": "two", "X-Request-Id": "mine-7", "X-Tier": "unknown",
			"X-Estimated-Power-Watts": "28",
		} {
			if got.header.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, got.header.Get(name), want)
			}
		}
		// It counts from the job's arrival, a moment before it was decided.
		if ms, err := strconv.Atoi(got.header.Get("X-Estimated-Latency-Ms")); err != nil || ms < 1200 || ms > 10_000 {
			t.Errorf("the estimated latency is %q", got.header.Get("X-Estimated-Latency-Ms"))
		}
		if got.status != 200 || got.header.Get("X-Routing-Reason") == "" {
			t.Errorf("got %+v", got)
		}
	}
	if got := r.ask("POST", "/api/generate", `{"model":"m"}`); got.header.Get("X-Backend-Used") != "one" ||
		got.header.Get("X-Alternatives") != "two" || len(got.header.Get("X-Request-Id")) < 10 {
		t.Errorf("got %+v", got)
	}
}

func TestADeadlineThatPassesIsToldAsSuch(t *testing.T) {
	r := newRig(t, with(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	got := r.ask("POST", "/api/generate", `{"model":"m"}`, "X-Deadline-Ms: 50")
	if got.status != 504 || read[wire.Error](t, got.body).Code != wire.CodeDeadlinePassed {
		t.Errorf("got %+v", got)
	}
}

func TestAStoppedDispatcherIsToldAsSuch(t *testing.T) {
	r := newRig(t, with(nil))
	r.dispatch.Stop()
	got := r.ask("POST", "/api/generate", `{"model":"m"}`)
	if got.status != 503 || read[wire.Error](t, got.body).Code != wire.CodeStopping || got.header.Get("Retry-After") == "" {
		t.Errorf("got %+v", got)
	}
}

func TestARequestTellsItsLengths(t *testing.T) {
	for body, want := range map[string][2]int{
		`{"model":"m"}`: {0, 0},
		`{"model":"m","options":{"num_predict":7,"num_ctx":8192}}`:  {7, 8192},
		`{"model":"m","options":{"num_predict":-1,"num_ctx":1e99}}`: {0, 1<<31 - 1},
	} {
		if j, _, err := httpapi.OllamaJob(job.Chat, "/api/chat", []byte(body)); err != nil || [2]int{j.MaxTokens, j.ContextLength} != want {
			t.Errorf("%s: %d tokens, %d of context, %v", body, j.MaxTokens, j.ContextLength, err)
		}
	}
}

func TestARequestTellsForHowLongItsModelIsWanted(t *testing.T) {
	for body, want := range map[string]time.Duration{
		`{"keep_alive":"10m"}`: 10 * time.Minute, `{"keep_alive":30,"Keep_Alive":-1}`: job.Forever, `{"keep_alive":0}`: 0,
	} {
		if j, _, err := httpapi.OllamaJob(job.Chat, "/api/chat", []byte(body)); err != nil || j.KeepAsked == nil || *j.KeepAsked != want {
			t.Errorf("%s: %v, %v", body, j.KeepAsked, err)
		}
	}
	for _, body := range []string{`{}`, `{"keep_alive":null}`, `{"keep_alive":5,"keep_alive":null}`} {
		if j, _, err := httpapi.OllamaJob(job.Chat, "/api/chat", []byte(body)); err != nil || j.KeepAsked != nil {
			t.Errorf("%s: %v, %v", body, j.KeepAsked, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","prompt":"p"}`, `{"joulemux":{"target":"one"},"model":"m","input":["a",1]}`, `{"a":1,"joulemux":{}}`,
		`{"joulemux":{},"joulemux":{}}`, `{"Joulemux":{"class":5}}`, `{"\u006aoulemux":{},"b":"joulemux"}`, `null`, `[]`, "", "{",
		`{"joulemux":null}`, `{ "x" : 1 , "joulemux" : { "custom":{"k":"v"} } , "y" : [ 2 ] } `, `{"keep_alive":0,"stream":false}`,
		`{"options":{"num_predict":1e99}}`, `{"messages":[{"content":"c"}],"tools":[{}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if !utf8.ValidString(body) {
			return // no such body is read
		}
		j, _, err := httpapi.OllamaJob(job.Chat, "/api/chat", []byte(body))
		if takenWhole(t, body, j, err) && (j.MaxTokens < 0 || j.PromptBytes > len(body)) {
			t.Errorf("%q: %d tokens, %d bytes", body, j.MaxTokens, j.PromptBytes)
		}
	})
}

// takenWhole reports whether a body was taken, and fails the test unless the job of
// it has all of it but our own member.
func takenWhole(t *testing.T, body string, j job.Job, err error) bool {
	t.Helper()
	if err != nil {
		if !errors.Is(err, job.Invalid) {
			t.Errorf("%q: %T %v", body, err, err)
		}
		return false
	}
	var want, got map[string]any
	if err := json.Unmarshal([]byte(body), &want); err != nil {
		t.Fatalf("%q was taken: %v", body, err)
	}
	if strings.Contains(body, job.OwnMember) { // spelled out, as it must be
		delete(want, job.OwnMember)
	}
	if err := json.Unmarshal(j.Original.Body, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q became %q, %v", body, j.Original.Body, err)
	}
	if !strings.Contains(body, job.OwnMember) && string(j.Original.Body) != body {
		t.Errorf("%q was changed to %q", body, j.Original.Body)
	}
	return true
}
