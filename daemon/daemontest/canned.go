// Package daemontest holds what tests of the whole daemon are made of, above
// all the servers that play its backends. Only tests use it.
//
// A server here has no model, and what it says of its work is invented. Real
// servers with a real model are packaging/rig's.
package daemontest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"
)

// CannedModels are the models that a canned Ollama claims to have: the two
// that Ollama's integration suite talks to when it tests the API.
func CannedModels() []string { return []string{"llama3.2:1b", "llama3.2:latest"} }

// text is every answer. It holds a word of each list of words that the suite
// looks for: about the sky, rainbows, oceans, soil, air, the fourth of July,
// and a story with emojis.
const text = "Rayleigh scattering: molecules of nitrogen and oxygen in the atmosphere scatter each wavelength of sunlight. " +
	"Water droplets refract and reflect light into a rainbow, a spectrum of color. " +
	"Soil is organic matter and minerals. " +
	"The Declaration of Independence is of July the fourth. " +
	"Once upon a time 🌍 there lived a friend who travelled the world in the rain ☔."

// CannedOllama returns a server of Ollama's API that answers whatever it is
// asked with the same text, or with the same tool call if it is offered tools.
// The answers have every field that a real server's have and that Ollama's
// integration suite checks.
func CannedOllama() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Ollama is running") })
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]string{"version": "0.17.4"})
	})
	mux.HandleFunc("GET /api/tags", tags)
	mux.HandleFunc("GET /api/ps", ps)
	mux.HandleFunc("POST /api/show", show)
	mux.HandleFunc("POST /api/generate", generate)
	mux.HandleFunc("POST /api/chat", chat)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "a canned Ollama has no "+r.URL.Path)
	})
	return mux
}

// Serve serves h on a free port of 127.0.0.1 until the test ends.
func Serve(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// size and digest are those of the real llama3.2:1b.
const (
	size   = 1321098329
	digest = "baf6a787fdffd633537aa2eb51cfd54cb93ff08e28040095462bb63daf552878"
)

func details() api.ModelDetails {
	return api.ModelDetails{
		Format: "gguf", Family: "llama", Families: []string{"llama"},
		ParameterSize: "1.2B", QuantizationLevel: "Q8_0",
	}
}

func modified() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func tags(w http.ResponseWriter, _ *http.Request) {
	var list api.ListResponse
	for _, name := range CannedModels() {
		list.Models = append(list.Models, api.ListModelResponse{
			Name: name, Model: name, ModifiedAt: modified(), Size: size, Digest: digest, Details: details(),
		})
	}
	write(w, list)
}

// ps says that every model is loaded, and none of it on a GPU.
func ps(w http.ResponseWriter, _ *http.Request) {
	var list api.ProcessResponse
	for _, name := range CannedModels() {
		list.Models = append(list.Models, api.ProcessModelResponse{
			Name: name, Model: name, Size: size, Digest: digest, Details: details(),
			ExpiresAt: time.Now().Add(5 * time.Minute), ContextLength: 4096,
		})
	}
	write(w, list)
}

func show(w http.ResponseWriter, r *http.Request) {
	var q struct{ Model, Name string } // Name is what Model was called before.
	if !read(w, r, &q) || !known(w, cmp.Or(q.Model, q.Name)) {
		return
	}
	write(w, api.ShowResponse{
		License: "none", Modelfile: "FROM llama3.2", Parameters: "stop <|eot_id|>", Template: "{{ .Prompt }}",
		Details: details(), ModifiedAt: modified(),
		ModelInfo: map[string]any{"general.architecture": "llama", "llama.context_length": 131072},
	})
}

// known reports whether the server has a model, and says so if not.
func known(w http.ResponseWriter, name string) bool {
	for _, n := range CannedModels() {
		if n == name || n == name+":latest" {
			return true
		}
	}
	refuse(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", name))
	return false
}

func generate(w http.ResponseWriter, r *http.Request) {
	var q api.GenerateRequest
	if !read(w, r, &q) || !known(w, q.Model) {
		return
	}
	o := order{
		prompt: strings.Fields(q.Prompt), limit: limit(q.Options),
		logprobs: q.Logprobs, top: q.TopLogprobs, whole: q.Stream != nil && !*q.Stream,
	}
	o.answer(w, func(p piece) any {
		answer := api.GenerateResponse{
			Model: q.Model, CreatedAt: time.Now().UTC(), Response: p.text, Logprobs: p.logprobs,
			Done: p.done != "", DoneReason: p.done, Metrics: p.metrics,
		}
		if answer.Done {
			answer.Context = []int{1, 2, 3}
		}
		return answer
	})
}

func chat(w http.ResponseWriter, r *http.Request) {
	var q api.ChatRequest
	if !read(w, r, &q) || !known(w, q.Model) {
		return
	}
	o := order{
		limit: limit(q.Options), tools: len(q.Tools) > 0,
		logprobs: q.Logprobs, top: q.TopLogprobs, whole: q.Stream != nil && !*q.Stream,
	}
	for _, m := range q.Messages {
		o.prompt = append(o.prompt, strings.Fields(m.Content)...)
	}
	o.answer(w, func(p piece) any {
		return api.ChatResponse{
			Model: q.Model, CreatedAt: time.Now().UTC(), Logprobs: p.logprobs,
			Message: api.Message{Role: "assistant", Content: p.text, ToolCalls: p.calls},
			Done:    p.done != "", DoneReason: p.done, Metrics: p.metrics,
		}
	})
}

// limit returns the option num_predict, or zero.
func limit(options map[string]any) int {
	n, _ := options["num_predict"].(float64)
	return int(n)
}

// read decodes a request's body, and says so if that fails. Requests without a
// content type are taken, as Ollama takes them.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(into)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
	}
	return err == nil
}

func refuse(w http.ResponseWriter, status int, why string) {
	respond(w, status, map[string]string{"error": why})
}

func write(w http.ResponseWriter, v any) { respond(w, http.StatusOK, v) }

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // A client that is gone needs no answer.
}
