package ollama

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/job"
)

// serve returns a Server in front of a scripted server.
func serve(t *testing.T, h http.HandlerFunc) *Server {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	endpoint, err := url.Parse(ts.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := New(endpoint)
	t.Cleanup(s.Close)
	return s
}

// outcome is everything that came of a job.
type outcome struct {
	head   job.Head
	begun  int
	chunks []job.Chunk
	err    error
}

func (o outcome) raw() string {
	var b strings.Builder
	for _, c := range o.chunks {
		b.Write(c.Raw)
	}
	return b.String()
}

func (o outcome) text() string {
	var b strings.Builder
	for _, c := range o.chunks {
		b.WriteString(c.Text)
	}
	return b.String()
}

func stream(t *testing.T, s *Server, j job.Job) (o outcome) {
	t.Helper()
	o.err = s.Stream(t.Context(), j,
		func(h job.Head) error { o.head, o.begun = h, o.begun+1; return nil },
		func(c job.Chunk) error {
			c.Raw = bytes.Clone(c.Raw)
			o.chunks = append(o.chunks, c)
			return nil
		})
	if last := len(o.chunks) - 1; o.err == nil && (last < 0 || !o.chunks[last].Last) {
		t.Error("a job that succeeded has no last chunk")
	}
	for i, c := range o.chunks {
		if c.Last && i < len(o.chunks)-1 {
			t.Error("a chunk follows the last")
		}
	}
	return o
}

// passed is a job whose request is passed through.
func passed(path, body string) job.Job {
	return job.Job{Kind: job.Chat, Stream: true, Original: &job.Original{Dialect: job.Ollama, Path: path, Body: []byte(body)}}
}

const (
	first = `{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}` + "\n"
	next  = `{"model":"m","message":{"role":"assistant","content":"lo \"done\":true"},"done":false}` + "\n"
	last  = `{"model":"m","message":{"content":"!"},"done":true,"prompt_eval_count":5,"eval_count":3,"eval_duration":3000000,"load_duration":7}` + "\n"
)

func TestStreamPassesEveryByte(t *testing.T) {
	const body = `{ "model":"m",  "messages":[], "stream":true }`
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got, _ := io.ReadAll(r.Body); r.URL.Path != "/api/chat" || string(got) != body {
			t.Errorf("the server got %s %s", r.URL.Path, got)
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		for _, line := range []string{first, next, last} {
			_, _ = io.WriteString(w, line)
			w.(http.Flusher).Flush()
		}
	})
	o := stream(t, s, passed("/api/chat", body))
	if o.err != nil || o.raw() != first+next+last || o.begun != 1 || o.text() != "" {
		t.Errorf("got %+v", o)
	}
	if o.head != (job.Head{Status: 200, ContentType: "application/x-ndjson", Length: -1}) {
		t.Errorf("head is %+v", o.head)
	}
	want := job.Usage{PromptTokens: 5, Tokens: 3, Decode: 3 * time.Millisecond, Load: 7}
	end := o.chunks[len(o.chunks)-1]
	if end.Usage != want || string(end.Raw) != last {
		t.Errorf("last chunk is %+v", end)
	}
}

func TestAnotherDialectThatOllamaSpeaksPassesEveryByteToo(t *testing.T) {
	const (
		hel   = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]}` + "\n\n"
		stop  = `data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}` + "\n\n"
		usage = `data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}` + "\n\n"
		done  = "data: [DONE]\n\n"
		whole = `{"choices":[{"index":0,"message":{"content":"Hello"}}] ,"usage":{"prompt_tokens":5,"completion_tokens":3}}`
	)
	for _, c := range []struct {
		name, path, body, sent, answer, want, last string
		chosen                                     bool
	}{
		{"a stream", "/v1/chat/completions", `{ "model":"m","stream":true,"stream_options":{"include_usage":true}}`, `{ "model":"m","stream":true,"stream_options":{"include_usage":true}}`, hel + stop + usage + done, hel + stop + usage + done, usage + done, false},
		{"one that does not ask for its use", "/v1/completions", `{"stream":true,"n" : 1}`, `{"stream_options":{"include_usage":true},"stream":true,"n" : 1}`, hel + stop + usage + done, hel + stop + done, stop + done, false},
		{"undivided", "/v1/chat/completions", `{"logprobs": true}`, `{"logprobs": true}`, whole, whole, "", false},
		{"with a model that was chosen", "/v1/embeddings", `{"input":"x"}`, `{"model":"m","input":"x"}`, whole, whole, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var path string
			var body []byte
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				path = r.URL.Path
				body, _ = io.ReadAll(r.Body)
				if c.last != "" {
					w.Header().Set("Content-Type", "text/event-stream")
				}
				_, _ = io.WriteString(w, c.answer)
			})
			j := passed(c.path, c.body)
			j.Original.Dialect, j.Model, j.Chosen, j.Stream = job.OpenAI, "m", c.chosen, c.last != ""
			o := stream(t, s, j)
			if path != c.path || string(body) != c.sent {
				t.Errorf("it was asked %s %s", path, body)
			}
			if o.err != nil || o.raw() != c.want {
				t.Errorf("%v: %q", o.err, o.raw())
			}
			last := o.chunks[len(o.chunks)-1]
			if c.last != "" && string(last.Raw) != c.last || last.Usage.PromptTokens != 5 || last.Usage.Tokens != 3 {
				t.Errorf("the last piece is %+v", last)
			}
		})
	}
	refuses := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"error":"so it is"}`, http.StatusNotFound)
	})
	j := passed("/v1/chat/completions", `{}`)
	j.Original.Dialect = job.OpenAI
	var e *job.Error
	if o := stream(t, refuses, j); !errors.As(o.err, &e) || e.Code != job.ModelNotFound || !strings.Contains(string(e.Answer.Body), `"message":"so it is"`) {
		t.Errorf("a refusal in the wrong words is %v", o.err)
	}
}

func TestContentIsEncodedAndText(t *testing.T) {
	temperature, topK, contextLength := 0.5, 40, 2048
	j := job.Job{
		Kind: job.Chat, Model: "m", Stream: true, MaxTokens: 9,
		Content: job.Content{
			System:   "be brief",
			Messages: []job.Message{{Role: "user", Content: "hi"}},
			Sampling: job.Sampling{Temperature: &temperature, TopK: &topK, ContextLength: &contextLength, Stop: []string{"x"}},
		},
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var got, want any
		_ = json.NewDecoder(r.Body).Decode(&got)
		_ = json.Unmarshal([]byte(`{"model":"m","stream":true,
			"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],
			"options":{"num_predict":9,"temperature":0.5,"top_k":40,"num_ctx":2048,"stop":["x"]}}`), &want)
		if a, b := fmt.Sprint(got), fmt.Sprint(want); a != b || r.URL.Path != "/api/chat" {
			t.Errorf("the server got %s %s, want %s", r.URL.Path, a, b)
		}
		_, _ = io.WriteString(w, first+next+last)
	})
	if o := stream(t, s, j); o.err != nil || o.text() != `Hello "done":true!` {
		t.Errorf("text is %q, %v", o.text(), o.err)
	}
}

func TestEmbeddings(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"model":"m","embeddings":[[0.5,-1]],"prompt_eval_count":4}`)
	})
	o := stream(t, s, job.Job{Kind: job.Embed, Model: "m", Content: job.Content{Input: []string{"a"}}})
	if o.err != nil || len(o.chunks) != 1 || fmt.Sprint(o.chunks[0].Vectors) != "[[0.5 -1]]" || o.chunks[0].Usage.PromptTokens != 4 {
		t.Errorf("got %+v", o)
	}
}

func TestUndividedAnswerPassesEveryByte(t *testing.T) {
	answer := `{"response":"` + strings.Repeat("x", 3*len(endpoint.Buffer{})) + `","done":true,"eval_count":8}`
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, answer) })
	j := passed("/api/generate", `{"model":"m","stream":false}`)
	j.Stream = false
	o := stream(t, s, j)
	if o.err != nil || o.raw() != answer || o.chunks[len(o.chunks)-1].Usage.Tokens != 8 {
		t.Errorf("%d bytes, usage %+v, %v", len(o.raw()), o.chunks[len(o.chunks)-1].Usage, o.err)
	}
}

func TestChosenModelIsNamed(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got, _ := io.ReadAll(r.Body); string(got) != `{"model":"tiny","prompt":"x"}` {
			t.Errorf("the server got %s", got)
		}
		_, _ = io.WriteString(w, last)
	})
	j := passed("/api/generate", `{"prompt":"x"}`)
	j.Model, j.Chosen = "tiny", true
	if o := stream(t, s, j); o.err != nil {
		t.Error(o.err)
	}
}

func TestKeepAliveIsWhatTheJobMayHave(t *testing.T) {
	keep := 18750 * time.Millisecond
	for name, c := range map[string]struct {
		job  job.Job
		want string
	}{
		"in a request of its dialect": {
			passed("/api/chat", `{"model":"m", "keep_alive":"1h" }`),
			`{"model":"m", "keep_alive":18 }`,
		},
		"beside a model that was chosen": {
			job.Job{Model: "m", Chosen: true, Original: &job.Original{Dialect: job.Ollama, Path: "/api/embeddings", Body: []byte(`{"prompt":"x"}`)}},
			`{"keep_alive":18,"model":"m","prompt":"x"}`,
		},
		"of what came over another wire": {
			job.Job{Kind: job.Embed, Model: "m", Content: job.Content{Input: []string{"a"}}},
			`{"keep_alive":18,"model":"m","input":["a"],"options":{}}`,
		},
	} {
		c.job.KeepAlive = &keep
		_, body, err := encode(c.job)
		if err != nil || string(body) != c.want {
			t.Errorf("%s: the server gets %s, %v; want %s", name, body, err, c.want)
		}
	}
}

func TestForHowLongAModelStaysIsNotSaidTwice(t *testing.T) {
	var said []string
	var mu sync.Mutex
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch r.URL.Path {
		case "/api/ps":
			_, _ = io.WriteString(w, `{"models":[{"model":"m:latest","expires_at":"2999-01-01T00:00:00Z"},{"model":"n:latest","expires_at":"2999-01-01T00:00:00Z"}]}`)
		case "/api/generate":
			said = append(said, string(body))
			_, _ = io.WriteString(w, `{"done":true}`)
		default:
			_, _ = io.WriteString(w, `{"done":true,"usage":{}}`)
		}
	})
	ask := func(dialect job.Dialect, model string, keep time.Duration) {
		path, kind := "/v1/chat/completions", job.Chat
		if dialect == job.Ollama {
			path = "/api/chat"
		}
		o := stream(t, s, job.Job{Kind: kind, Model: model, KeepAlive: &keep, Original: &job.Original{Dialect: dialect, Path: path, Body: []byte(`{"model":"` + model + `"}`)}})
		if o.err != nil {
			t.Fatal(o.err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		says int
	}{
		{"it is said", func() { ask(job.OpenAI, "m", time.Hour) }, 1},
		{"and not again, whatever the model is called", func() { ask(job.OpenAI, "m:latest", time.Hour) }, 0},
		{"of another time it is", func() { ask(job.OpenAI, "m", time.Minute) }, 1},
		{"requests that say so themselves do", func() { ask(job.Ollama, "m", time.Hour); ask(job.OpenAI, "m", time.Hour) }, 0},
		{"which counts as the last word", func() { ask(job.Ollama, "m", time.Hour); ask(job.OpenAI, "m", time.Minute) }, 1},
		{"another model may have taken its place", func() { ask(job.OpenAI, "n", time.Minute); ask(job.OpenAI, "m", time.Minute) }, 2},
		{"one that was let go of is not told of", func() {
			if err := s.Unload(t.Context(), "m"); err != nil {
				t.Error(err)
			}
			ask(job.OpenAI, "m", time.Minute)
		}, 2},
		{"one that cannot stay is let go of every time", func() { ask(job.OpenAI, "m", 0); ask(job.OpenAI, "m", 0) }, 2},
	} {
		said = nil
		if step.do(); len(said) != step.says {
			t.Errorf("%s: %q", step.name, said)
		}
	}
	ask(job.OpenAI, "m", time.Hour)
	s.told.Load().at = time.Now().Add(-toldFresh)
	said = nil
	if ask(job.OpenAI, "m", time.Hour); len(said) != 1 {
		t.Errorf("after a while it is said %q", said)
	}
}

func TestUnloadSaysWhyNot(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"model 'm' not found"}`)
	})
	var e *job.Error
	if err := s.Unload(t.Context(), "m"); !errors.As(err, &e) || e.Code != job.ModelNotFound || e.Detail != "model 'm' not found" {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	native := job.Job{Kind: job.Chat, Stream: true}
	for _, c := range []struct {
		status int
		job    job.Job
		code   job.Code
	}{
		{500, passed("/api/chat", "{}"), job.BackendFailed},
		{502, native, job.BackendFailed},
		{503, native, job.Busy},
		{429, passed("/api/chat", "{}"), job.Busy},
		{404, passed("/api/chat", "{}"), job.ModelNotFound},
		{400, native, job.Invalid},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, `{"error":"so it is"}`)
		})
		o := stream(t, s, c.job)
		var e *job.Error
		if !errors.As(o.err, &e) || e.Code != c.code || e.Detail != "so it is" || e.Answer.Status != c.status || o.begun != 0 {
			t.Errorf("%d: %+v", c.status, o)
		}
	}
}

func TestRefusalOfAMalformedRequestIsAnAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"error":"top_logprobs must be between 0 and 20"}`)
	})
	o := stream(t, s, passed("/api/chat", "{}"))
	if o.err != nil || o.head.Status != 400 || o.raw() != `{"error":"top_logprobs must be between 0 and 20"}` {
		t.Errorf("got %+v", o)
	}
}

func TestEarlyEnds(t *testing.T) {
	hijack := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	for _, c := range []struct {
		name  string
		serve func(w http.ResponseWriter)
		raw   string
		told  bool
		begun int
	}{
		{"no last line", func(w http.ResponseWriter) { _, _ = io.WriteString(w, first) }, first, false, 1},
		{"nothing at all", func(w http.ResponseWriter) { w.WriteHeader(200) }, "", false, 0},
		{"an error in place of a token", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"error":"boom"}`) }, "", false, 0},
		{"an error after a token", func(w http.ResponseWriter) { _, _ = io.WriteString(w, first+`{"error":"boom"}`) }, first + `{"error":"boom"}`, true, 1},
		{"death after a token", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, first)
			w.(http.Flusher).Flush()
			hijack(w)
		}, first, false, 1},
		{"death before headers", hijack, "", false, 0},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { c.serve(w) })
		o := stream(t, s, passed("/api/chat", "{}"))
		var e *job.Error
		if !errors.As(o.err, &e) || e.Code != job.BackendFailed || e.Told != c.told || o.raw() != c.raw || o.begun != c.begun {
			t.Errorf("%s: %+v", c.name, o)
		}
	}
}

func TestConnectionIsUsedAgainAfterAStream(t *testing.T) {
	peers, seen := make(map[string]int), make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr]++ // One request at a time.
		_, _ = io.WriteString(w, first+last)
		_ = http.NewResponseController(w).Flush()
		<-seen // The end of the answer comes after its last line, as Ollama's does.
	})
	const streams = 20
	for range streams {
		err := s.Stream(t.Context(), passed("/api/chat", "{}"), func(job.Head) error { return nil }, func(c job.Chunk) error {
			if c.Last {
				seen <- struct{}{}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The end of one may be later, on a loaded machine, than it is waited for.
	if len(peers) > streams/2 {
		t.Errorf("%d streams in a row took %d connections", streams, len(peers))
	}
}

func TestServerThatLingersAfterItsLastLineIsNotWaitedFor(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, first+last)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // which is when its client has given it up
		close(ended)
	})
	if o := stream(t, s, passed("/api/chat", "{}")); o.err != nil || o.raw() != first+last {
		t.Errorf("got %+v", o)
	}
	<-ended
}

func TestErrorsOfTheClientStayTheirs(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, first+last) })
	gone := errors.New("gone")
	ok := func(job.Chunk) error { return nil }
	if err := s.Stream(t.Context(), passed("/api/chat", "{}"), func(job.Head) error { return gone }, ok); !errors.Is(err, gone) {
		t.Errorf("begin's error became %v", err)
	}
	if err := s.Stream(t.Context(), passed("/api/chat", "{}"), func(job.Head) error { return nil }, func(job.Chunk) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("emit's error became %v", err)
	}
}

func TestCancelReachesTheServer(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the client left")
	go func() { <-arrived; cancel(why) }()
	err := s.Stream(ctx, passed("/api/chat", "{}"), nil, nil)
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	<-gone
}

func TestEndOfTheJobDuringAnErrorIsNoFailure(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusInternalServerError)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	why := errors.New("the deadline has passed")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer cancel()
	if err := s.Stream(ctx, passed("/api/chat", "{}"), nil, nil); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestProbe(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answers := map[string]string{
			"/api/version": `{"version":"0.17.4"}`,
			"/api/tags": `{"models":[{"name":"a:latest","model":"a:latest","digest":"d1","size":10},{"name":"b:1b","digest":"d2","size":20},
				{"name":"c:cloud","model":"c:cloud","remote_model":"c","remote_host":"https://ollama.com:443","digest":"d3","size":384}]}`,
			"/api/ps": `{"models":[{"name":"b:1b","model":"b:1b","size_vram":7,"context_length":4096,"expires_at":"2026-03-14T09:05:00Z"}]}`,
		}
		_, _ = io.WriteString(w, answers[r.URL.Path])
	})
	facts, err := s.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []job.Model{{Name: "a:latest", Digest: "d1", Size: 10, Owner: "library"}, {Name: "b:1b", Digest: "d2", Size: 20, Owner: "library", Resident: true, Until: time.Date(2026, time.March, 14, 9, 5, 0, 0, time.UTC), VRAM: 7, ContextLength: 4096}}
	if facts.Version != "0.17.4" || fmt.Sprint(facts.Models) != fmt.Sprint(want) {
		t.Errorf("got %+v", facts)
	}
}

func TestProbeKnowsJoulemux(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(InstanceHeader, "abc")
		_, _ = io.WriteString(w, `{"version":"1"}`)
	})
	if facts, err := s.Probe(t.Context()); err != nil || facts.Instance != "abc" {
		t.Errorf("got %+v, %v", facts, err)
	}
}

func TestProbeOfSomethingElse(t *testing.T) {
	for _, body := range []string{"", "<html>", `{"version":1}`, `[]`} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, body) })
		if _, err := s.Probe(t.Context()); err == nil {
			t.Errorf("%q passes for a server of Ollama's API", body)
		}
	}
}

func TestUnixEndpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"version":"over a socket"}`)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	s := New(&url.URL{Scheme: "unix", Path: path})
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// FuzzLines cuts a stream anywhere and holds that every byte passes once.
func FuzzLines(f *testing.F) {
	f.Add([]byte(first+next+last), true)
	f.Add([]byte(first+`{"error":"boom"}`), false)
	f.Add([]byte("\n\n{\"done\" : true}"), true)
	f.Add(bytes.Repeat([]byte("x"), 3*len(endpoint.Buffer{})), false)
	f.Fuzz(func(t *testing.T, body []byte, slow bool) {
		var got []byte
		ended := false
		a := answer{
			job: passed("/api/chat", "{}"),
			Handing: endpoint.Handing{Start: func(job.Head) error { return nil }, Emit: func(c job.Chunk) error {
				if ended {
					t.Fatal("a chunk after the last")
				}
				got, ended = append(got, c.Raw...), c.Last
				return nil
			}},
		}
		var r io.Reader = bytes.NewReader(body)
		if slow {
			r = iotest.OneByteReader(r)
		}
		err := a.readLines(r)
		if ended != (err == nil) {
			t.Fatalf("last chunk seen: %v, and yet the error is %v", ended, err)
		}
		if !bytes.HasPrefix(body, got) {
			t.Fatalf("%q became %q", body, got)
		}
	})
}
