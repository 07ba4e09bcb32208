package daemon_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// TestOllamasOwnClientOnEveryEndpoint: what it reads is what it reads of Ollama
// itself, member by member, but for times.
func TestOllamasOwnClientOnEveryEndpoint(t *testing.T) {
	server := realOllama(t)
	d := daemontest.Start(t, daemontest.Options{
		Server: "allow_admin: true", Config: "backends: [{id: ollama-cpu, hardware: cpu, endpoint: \"" + server + "\"}]\n",
	})
	there, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	direct := api.NewClient(there, &http.Client{Transport: transport})
	through := api.NewClient(&url.URL{Scheme: "http", Host: "localhost"}, d.Client())
	for _, c := range clientCalls {
		t.Run(c.name, func(t *testing.T) {
			want, wantErr := c.call(t.Context(), direct)
			got, err := c.call(t.Context(), through)
			// The words for what is wrong may be others.
			if a, b := timeless(t, got), timeless(t, want); a != b || (err != nil) != c.fails || (wantErr != nil) != c.fails {
				t.Errorf("it reads\n%s, %v\nand of Ollama itself\n%s, %v", a, err, b, wantErr)
			}
		})
	}
}

// times are the members which say when, or for how long.
var times = regexp.MustCompile(`"(created_at|modified_at|expires_at|total_duration|load_duration|prompt_eval_duration|eval_duration)":("[^"]*"|\d+)`)

func timeless(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return times.ReplaceAllString(string(text), `"$1":0`)
}

// pieces is what takes an answer piece by piece.
func pieces[T any](call func(take func(T) error) error) (all []T, err error) {
	err = call(func(piece T) error {
		all = append(all, piece)
		return nil
	})
	return all, err
}

// clientCalls are all that the client can ask of a server on this machine.
var clientCalls = []struct {
	name  string
	call  func(context.Context, *api.Client) (any, error)
	fails bool
}{
	{"heartbeat", func(ctx context.Context, c *api.Client) (any, error) { return nil, c.Heartbeat(ctx) }, false},
	{"version", func(ctx context.Context, c *api.Client) (any, error) { return c.Version(ctx) }, false},
	{"list", func(ctx context.Context, c *api.Client) (any, error) { return c.List(ctx) }, false},
	{"show", func(ctx context.Context, c *api.Client) (any, error) {
		return c.Show(ctx, &api.ShowRequest{Model: "tiny"})
	}, false},
	{"show, of no model", func(ctx context.Context, c *api.Client) (any, error) {
		return c.Show(ctx, &api.ShowRequest{Model: "nobody"})
	}, true},
	{"chat", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.ChatResponse) error) error {
			return c.Chat(ctx, &api.ChatRequest{Model: "tiny", Messages: []api.Message{{Role: "user", Content: "hi"}}, Options: few(9)}, take)
		})
	}, false},
	{"chat, undivided, with likelihoods", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.ChatResponse) error) error {
			return c.Chat(ctx, &api.ChatRequest{
				Model: "tiny", Messages: []api.Message{{Role: "system", Content: "be brief"}, {Role: "user", Content: "hi"}},
				Stream: new(bool), Options: few(4), Logprobs: true, TopLogprobs: 2,
			}, take)
		})
	}, false},
	{"chat, in a form", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.ChatResponse) error) error {
			return c.Chat(ctx, &api.ChatRequest{
				Model: "tiny", Messages: []api.Message{{Role: "user", Content: "hi"}}, Options: few(12),
				Format: json.RawMessage(`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`),
			}, take)
		})
	}, false},
	{"chat with tools, which this model cannot", func(ctx context.Context, c *api.Client) (any, error) {
		tool := api.Tool{Type: "function", Function: api.ToolFunction{Name: "look"}}
		return pieces(func(take func(api.ChatResponse) error) error {
			return c.Chat(ctx, &api.ChatRequest{Model: "tiny", Messages: []api.Message{{Role: "user", Content: "hi"}}, Tools: api.Tools{tool}}, take)
		})
	}, true},
	{"generate", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.GenerateResponse) error) error {
			return c.Generate(ctx, &api.GenerateRequest{Model: "tiny", Prompt: "hi", Options: few(9)}, take)
		})
	}, false},
	{"generate, undivided and raw", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.GenerateResponse) error) error {
			return c.Generate(ctx, &api.GenerateRequest{Model: "tiny", Prompt: "hi", Raw: true, Stream: new(bool), Options: few(5)}, take)
		})
	}, false},
	{"generate, with an option out of bounds", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.GenerateResponse) error) error {
			return c.Generate(ctx, &api.GenerateRequest{Model: "tiny", Prompt: "hi", Options: map[string]any{"num_predict": "many"}}, take)
		})
	}, true},
	{"embed", func(ctx context.Context, c *api.Client) (any, error) {
		return c.Embed(ctx, &api.EmbedRequest{Model: "tiny", Input: []string{"a", "b c"}})
	}, false},
	{"embeddings", func(ctx context.Context, c *api.Client) (any, error) {
		return c.Embeddings(ctx, &api.EmbeddingRequest{Model: "tiny", Prompt: "a"})
	}, false},
	{"running", func(ctx context.Context, c *api.Client) (any, error) { return c.ListRunning(ctx) }, false},
	{"blob", func(ctx context.Context, c *api.Client) (any, error) {
		text := []byte("no model at all")
		return nil, c.CreateBlob(ctx, fmt.Sprintf("sha256:%x", sha256.Sum256(text)), io.NopCloser(bytes.NewReader(text)))
	}, false},
	{"create", func(ctx context.Context, c *api.Client) (any, error) {
		return pieces(func(take func(api.ProgressResponse) error) error {
			return c.Create(ctx, &api.CreateRequest{Model: "other", From: "tiny"}, take)
		})
	}, false},
	{"copy, and delete", func(ctx context.Context, c *api.Client) (any, error) {
		if err := c.Copy(ctx, &api.CopyRequest{Source: "other", Destination: "another"}); err != nil {
			return nil, err
		}
		return nil, c.Delete(ctx, &api.DeleteRequest{Model: "another"})
	}, false},
	{"delete, of no model", func(ctx context.Context, c *api.Client) (any, error) {
		return nil, c.Delete(ctx, &api.DeleteRequest{Model: "nobody"})
	}, true},
}

// few has an answer be the same each time, and as long as that.
func few(tokens int) map[string]any {
	return map[string]any{"num_predict": tokens, "seed": 1, "temperature": 0}
}
