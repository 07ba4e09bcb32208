package ollama_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/packaging/rig"
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
	await(t, s, "no model may stay", false)

	ask(time.Hour)
	if !resident(t, s) {
		t.Error("a model that may stay is gone")
	}
	if err := s.Unload(t.Context(), "tiny"); err != nil {
		t.Fatal(err)
	}
	await(t, s, "the model was unloaded", false)
	if err := s.Unload(t.Context(), "tiny"); err != nil {
		t.Error("what is gone can go: ", err)
	}

	start := time.Now()
	ask(5 * time.Second)
	if !resident(t, s) {
		t.Error("a model that may stay 5 s is gone at once")
	}
	await(t, s, "its 5 s are over", false)
	if stayed := time.Since(start); stayed < 5*time.Second {
		t.Errorf("it stayed %v", stayed)
	}
}

// startOllama starts a server that has a model.
func startOllama(t *testing.T) *ollama.Server {
	t.Helper()
	binary, err := rig.OllamaBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	model, err := rig.TinyModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running, err := rig.StartOllama(t.Context(), rig.OllamaOptions{Binary: binary, Home: t.TempDir(), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := running.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := rig.CreateModel(t.Context(), running.URL(), "tiny", model); err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(running.URL())
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

// await waits, 20 seconds at most, until the model is in memory or not.
func await(t *testing.T, s *ollama.Server, why string, want bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for resident(t, s) != want {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s, and yet resident is not %v", why, want)
		}
	}
}
