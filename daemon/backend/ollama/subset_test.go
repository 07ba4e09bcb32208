package ollama

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// cannedFastFlowLM answers as one does, and fails the test if it is asked for what
// it has not.
func cannedFastFlowLM(t *testing.T) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answers := map[string]string{
			"/api/version":        `{"version":"0.9.45"}`,
			"/api/npu/status":     `{"busy":false}`,
			"/api/tags":           `{"models":[{"name":"llama3.2:1b","model":"llama3.2:1b","digest":"ollamas","size":10}]}`,
			"/api/ps":             `{"models":[{"name":"llama3.2:1b"}]}`,
			"POST /api/chat":      first + last,
			"POST /v1/embeddings": `{"data":[{"index":0,"embedding":[0,1]}],"usage":{"prompt_tokens":4}}`,
		}
		path := r.URL.Path
		if r.Method == http.MethodPost {
			path = "POST " + path
		}
		answer, ok := answers[path]
		if !ok || strings.Contains(string(body), "keep_alive") {
			t.Errorf("it was asked %s %s", path, body)
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, answer)
	}
}

func TestFastFlowLMIsKnownByAsking(t *testing.T) {
	s := serve(t, cannedFastFlowLM(t))
	if err := s.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	facts, err := s.Probe(t.Context())
	if err != nil || facts.Server != "fastflowlm 0.9.45" || facts.Device != power.NPU || strings.Join(facts.Lacks, " ") != "keep_alive pull unload" {
		t.Fatalf("got %+v, %v", facts, err)
	}
	if m := facts.Models[0]; len(m.Digest) != 64 || m.VRAM != -1 || !m.Resident {
		t.Errorf("its model is %+v", m)
	}
	keep := time.Minute
	j := passed("/api/chat", `{"model":"llama3.2:1b"}`)
	j.KeepAlive = &keep
	if o := stream(t, s, j); o.err != nil || o.raw() != first+last {
		t.Errorf("got %+v", o)
	}
	if err := s.Unload(t.Context(), "llama3.2:1b"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestFastFlowLMEmbedsInAnotherDialect(t *testing.T) {
	s := serve(t, cannedFastFlowLM(t))
	s.subset.Store(true)
	for _, c := range []struct{ path, body, want string }{
		{"/api/embed", `{"model":"llama3.2:1b","input":"a"}`, `"embeddings":[[0,1]]`},
		{"/api/embeddings", `{"model":"llama3.2:1b","prompt":"a"}`, `{"embedding":[0,1]}`},
	} {
		j := job.Job{Kind: job.Embed, Model: "llama3.2:1b", Original: &job.Original{Dialect: job.Ollama, Path: c.path, Body: []byte(c.body)}}
		if o := stream(t, s, j); o.err != nil || !strings.Contains(o.raw(), c.want) {
			t.Errorf("%s: got %+v", c.path, o)
		}
	}
	o := stream(t, s, job.Job{Kind: job.Embed, Model: "llama3.2:1b", Content: job.Content{Input: []string{"a"}}})
	if o.err != nil || fmt.Sprint(o.chunks[0].Vectors) != "[[0 1]]" || o.chunks[0].Usage.PromptTokens != 4 {
		t.Errorf("got %+v", o)
	}
}

func TestOllamaIsNoFastFlowLM(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/npu/status" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, `{"version":"0.17.4"}`)
	})
	if err := s.Learn(t.Context()); err != nil {
		t.Error(err)
	}
	if facts, err := s.Probe(t.Context()); err != nil || facts.Server != "ollama 0.17.4" || facts.Device != "" || facts.Lacks != nil {
		t.Errorf("got %+v, %v", facts, err)
	}
}

func TestFastFlowLMIsAskedForMessagesAsChats(t *testing.T) {
	var path, body string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		path, body = r.URL.Path, string(asked)
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"message":{"content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}`)
	})
	s.subset.Store(true)
	for _, c := range []struct {
		of   job.Original
		want string
	}{
		{job.Original{Dialect: job.Anthropic, Path: "/v1/messages", Body: []byte(`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`)}, `"stop_reason":"end_turn"`},
		{job.Original{Dialect: job.OpenAI, Path: "/v1/responses", Body: []byte(`{"model":"m","input":"hi"}`)}, `"object":"response"`},
	} {
		o := stream(t, s, job.Job{Kind: job.Chat, ID: "J", Model: "m", Original: &c.of})
		if o.err != nil || !strings.Contains(o.raw(), c.want) || o.chunks[0].Usage.Tokens != 3 {
			t.Errorf("got %+v", o)
		}
		if path != "/v1/chat/completions" || !strings.Contains(body, `"content":"hi"`) {
			t.Errorf("it was asked %s %s", path, body)
		}
	}
	bad := job.Job{Kind: job.Chat, Original: &job.Original{Dialect: job.Anthropic, Path: "/v1/messages", Body: []byte(`{}`)}}
	if o := stream(t, s, bad); !errors.Is(o.err, job.Invalid) {
		t.Errorf("got %v", o.err)
	}
}

func TestMessagesAndResponsesPassEveryByte(t *testing.T) {
	const (
		says  = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n"
		delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":5,\"output_tokens\":3}}\n\n"
		stops = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
		part  = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\"}\n\n"
		ends  = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":3}}}\n\n"
	)
	for _, c := range []struct {
		of           job.Original
		answer, last string
	}{
		{job.Original{Dialect: job.Anthropic, Path: "/v1/messages", Body: []byte(`{ "max_tokens":1,"stream":true,"tool_choice":{"type":"any"}}`)}, says + delta + stops, delta + stops},
		{job.Original{Dialect: job.OpenAI, Path: "/v1/responses", Body: []byte(`{ "input":"x","stream":true,"tool_choice":"required"}`)}, part + ends, ends},
	} {
		var path, body string
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked, _ := io.ReadAll(r.Body)
			path, body = r.URL.Path, string(asked)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, c.answer)
		})
		o := stream(t, s, job.Job{Kind: job.Chat, Stream: true, Model: "m", Original: &c.of})
		if path != c.of.Path || body != string(c.of.Body) {
			t.Errorf("it was asked %s %s", path, body)
		}
		last := o.chunks[len(o.chunks)-1]
		if o.err != nil || o.head.Warning != "tool_choice has no effect on Ollama's answers" || o.raw() != c.answer || string(last.Raw) != c.last || last.Usage.PromptTokens != 5 || last.Usage.Tokens != 3 {
			t.Errorf("%v: %q, %+v", o.err, o.raw(), last.Usage)
		}
		refuses := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"so it is"}`, http.StatusNotFound)
		})
		var e *job.Error
		o = stream(t, refuses, job.Job{Kind: job.Chat, Original: &c.of})
		if !errors.As(o.err, &e) || e.Code != job.ModelNotFound || e.Answer.Dialect != c.of.Dialect || !strings.Contains(string(e.Answer.Body), `"message":"so it is"`) {
			t.Errorf("a refusal is %v", o.err)
		}
	}
}
