package ollama_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/packaging/rig/rigtest"
)

var _ backend.Unloader = (*ollama.Server)(nil)

// A real Ollama has the last word on what keep_alive does.
func TestModelsStayForAsLongAsTheyMay(t *testing.T) {
	s := startOllama(t)
	ask := func(keep time.Duration) {
		t.Helper()
		j := job.Job{
			Kind: job.Chat, Stream: true, KeepAlive: &keep,
			Original: &job.Original{
				Dialect: job.Ollama, Path: "/api/chat",
				Body: []byte(`{"model":"tiny","messages":[{"role":"user","content":"hi"}],"keep_alive":-1,"options":{"num_predict":2}}`),
			},
		}
		err := s.Stream(t.Context(), j, func(job.Head) error { return nil }, func(job.Chunk) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}

	ask(0)
	gone(t, s, "no model may stay")

	ask(time.Hour)
	if !resident(t, s) {
		t.Error("a model that may stay is gone")
	}
	if err := s.Unload(t.Context(), "tiny"); err != nil {
		t.Fatal(err)
	}
	gone(t, s, "the model was unloaded")
	if err := s.Unload(t.Context(), "tiny"); err != nil {
		t.Error("what is gone can go: ", err)
	}

	start := time.Now()
	ask(5 * time.Second)
	if !resident(t, s) {
		t.Error("a model that may stay 5 s is gone at once")
	}
	gone(t, s, "its 5 s are over")
	if stayed := time.Since(start); stayed < 5*time.Second {
		t.Errorf("it stayed %v", stayed)
	}
}

// In OpenAI's dialect no request can say for how long a model stays.
func TestModelsStayForAsLongAsTheyMayWhereTheRequestCannotSay(t *testing.T) {
	for name, c := range map[string]struct {
		kind       job.Kind
		path, body string
	}{
		"a stream":            {job.Chat, "/v1/chat/completions", `{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}],"max_tokens":2}`},
		"an undivided answer": {job.Generate, "/v1/completions", `{"model":"tiny","prompt":"hi","max_tokens":2}`},
		"embeddings":          {job.Embed, "/v1/embeddings", `{"model":"tiny","input":"hi"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startOllama(t)
			ask := func(keep time.Duration) {
				t.Helper()
				j := job.Job{
					Kind: c.kind, Model: "tiny", Stream: strings.Contains(c.body, `"stream":true`), KeepAlive: &keep,
					Original: &job.Original{Dialect: job.OpenAI, Path: c.path, Body: []byte(c.body)},
				}
				begun := time.Now()
				err := s.Stream(t.Context(), j, func(job.Head) error { return nil }, func(job.Chunk) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("with %v to stay it took %v", keep, time.Since(begun))
			}
			ask(0)
			gone(t, s, "no model may stay")
			for range 2 { // the second finds it there
				start := time.Now()
				ask(5 * time.Second)
				if !resident(t, s) {
					t.Error("a model that may stay 5 s is gone at once")
				}
				gone(t, s, "its 5 s are over")
				if stayed := time.Since(start); stayed < 5*time.Second {
					t.Errorf("it stayed %v", stayed)
				}
			}
			ask(time.Hour)
			facts, err := s.Probe(t.Context())
			if err != nil || len(facts.Models) != 1 || time.Until(facts.Models[0].Until) < 59*time.Minute {
				t.Errorf("%+v, %v", facts.Models, err)
			}
		})
	}
}

func TestAModelThatWentIsNotLoadedAgainToSayThatItMayStay(t *testing.T) {
	t.Parallel()
	s := startOllama(t, "OLLAMA_KEEP_ALIVE=0")
	keep := time.Hour
	for range 3 {
		j := job.Job{
			Kind: job.Embed, Model: "tiny", KeepAlive: &keep,
			Original: &job.Original{Dialect: job.OpenAI, Path: "/v1/embeddings", Body: []byte(`{"model":"tiny","input":"hi"}`)},
		}
		if err := s.Stream(t.Context(), j, func(job.Head) error { return nil }, func(job.Chunk) error { return nil }); err != nil {
			t.Fatal(err)
		}
		gone(t, s, "the server keeps nothing")
	}
}

// startOllama starts a server that has a model.
func startOllama(t *testing.T, env ...string) *ollama.Server {
	t.Helper()
	endpoint, err := url.Parse(rigtest.Ollama(t, env...).URL())
	if err != nil {
		t.Fatal(err)
	}
	s := ollama.New(endpoint)
	t.Cleanup(s.Close)
	return s
}

// resident reports whether the server's model is in memory.
func resident(t *testing.T, s *ollama.Server) bool {
	t.Helper()
	facts, err := s.Probe(t.Context())
	if err != nil || len(facts.Models) != 1 {
		t.Fatalf("models are %+v, %v", facts.Models, err)
	}
	return facts.Models[0].Resident
}

// gone waits, 20 seconds at most, until the model is not in memory any more.
func gone(t *testing.T, s *ollama.Server, why string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for resident(t, s) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s, and yet the model is there", why)
		}
	}
}
