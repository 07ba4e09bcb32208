// Package rigtest starts parts of the rig for a test, and ends them with it. Only
// tests use it.
package rigtest

import (
	"testing"

	"github.com/joulemux/joulemux/packaging/rig"
)

// Model is the name of the model that an Ollama has.
const Model = "tiny"

// Ollama starts a real server that has one model, with more in its environment.
// Short tests are skipped.
func Ollama(t testing.TB, env ...string) *rig.Ollama {
	t.Helper()
	s := EmptyOllama(t, env...)
	weights, err := rig.TinyModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.CreateModel(t.Context(), s.URL(), Model, weights); err != nil {
		t.Fatal(err)
	}
	return s
}

// EmptyOllama starts one that has none.
func EmptyOllama(t testing.TB, env ...string) *rig.Ollama {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real Ollama")
	}
	binary, err := rig.OllamaBinary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rig.StartOllama(t.Context(), rig.OllamaOptions{Binary: binary, Home: t.TempDir(), Log: t.Output(), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		over := false
		select {
		case <-s.Done(): // the test has ended it
			over = true
		default:
		}
		if err := s.Close(); err != nil && !over {
			t.Error(err)
		}
	})
	return s
}
