package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// openAIOnly is a real Ollama of which only OpenAI's API is to be seen.
func openAIOnly(t *testing.T) (addr string) {
	t.Helper()
	return openAIOf(t, realOllama(t))
}

// openAIOf is a server of which only OpenAI's API is to be seen.
func openAIOf(t *testing.T, server string) (addr string) {
	t.Helper()
	return showing(t, server, "/v1/")
}

// showing is a server of which only what is below some paths is to be seen.
func showing(t *testing.T, server string, paths ...string) (addr string) {
	t.Helper()
	proxy := proxyOf(t, server)
	return daemontest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.ContainsFunc(paths, func(path string) bool { return strings.HasPrefix(r.URL.Path, path) }) {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
}

// proxyOf stands before a server, and lets everything through.
func proxyOf(t *testing.T, server string) http.Handler {
	t.Helper()
	there, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(there) }, FlushInterval: -1,
		Transport: &http.Transport{DisableKeepAlives: true}, // connections that the daemon is not to be blamed for
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A request is closed when its answer begins, and the server's connection with
		// it if the transport has yet to see that the request is over.
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	})
}

func TestOllamasClientBeforeAServerOfOpenAIsAPI(t *testing.T) {
	addr := openAIOnly(t)
	d := daemontest.Start(t, daemontest.Options{Config: `
backends: [{id: other, hardware: cpu, slots: 4, endpoint: "http://` + addr + `", models: {small: "tiny:latest"}}]
`})
	base, _ := url.Parse("http://localhost")
	client := api.NewClient(base, d.Client())
	ctx := t.Context()
	few := map[string]any{"num_predict": 5, "seed": 1, "temperature": 0}

	var streamed, whole string
	var last api.ChatResponse
	messages := []api.Message{{Role: "user", Content: "hi there"}}
	err := client.Chat(ctx, &api.ChatRequest{Model: "small", Messages: messages, Options: few}, func(r api.ChatResponse) error {
		streamed += r.Message.Content
		last = r
		return nil
	})
	if err != nil || streamed == "" || !last.Done || last.DoneReason != "length" || last.EvalCount != 5 || last.PromptEvalCount == 0 || last.TotalDuration == 0 || last.Model != "small" {
		t.Errorf("chat: %q, %+v, %v", streamed, last, err)
	}
	no := false
	err = client.Generate(ctx, &api.GenerateRequest{Model: "small", Prompt: "hi there", Stream: &no, Options: few}, func(r api.GenerateResponse) error {
		whole += r.Response
		return nil
	})
	if err != nil || whole != streamed {
		t.Errorf("generate: %q, and %q in pieces, %v", whole, streamed, err)
	}
	if v, err := client.Embed(ctx, &api.EmbedRequest{Model: "small", Input: []string{"a", "b"}}); err != nil || len(v.Embeddings) != 2 || v.PromptEvalCount == 0 {
		t.Errorf("embed: %+v, %v", v, err)
	}
	if l, err := client.List(ctx); err != nil || len(l.Models) != 1 || l.Models[0].Name != "small" || len(l.Models[0].Digest) != 64 {
		t.Errorf("list: %+v, %v", l, err)
	}
	if p, err := client.ListRunning(ctx); err != nil || len(p.Models) != 1 || p.Models[0].Name != "small" {
		t.Errorf("ps: %+v, %v", p, err)
	}
	if s, err := client.Show(ctx, &api.ShowRequest{Model: "small"}); err != nil || len(s.Capabilities) != 1 {
		t.Errorf("show: %+v, %v", s, err)
	}
	if v, err := client.Version(ctx); err != nil || v != dialect.OllamaVersion {
		t.Errorf("version: %s, %v", v, err)
	}
}

func TestServerOfOpenAIsAPIServesEveryFrontEnd(t *testing.T) {
	d := daemontest.Start(t, daemontest.Options{Config: `
backends: [{id: other, hardware: cpu, endpoint: "http://` + openAIOnly(t) + `"}]
`})
	a := ask(t, d, "POST", "/joulemux/v1/generate", `{"prompt":"hi there","options":{"model":"tiny","max_tokens":4}}`)
	if !strings.Contains(a.body, `"text":"`) || !strings.Contains(a.body, `"backend_used":"other"`) {
		t.Errorf("our own: %d %s", a.status, a.body)
	}
	a = ask(t, d, "POST", "/api/chat", `{"model":"tiny","messages":[{"role":"user","content":"hi"}],"options":{"num_predict":3,"num_gpu":1}}`)
	report := member(t, a.body[strings.LastIndex(strings.TrimSpace(a.body), "\n")+1:])
	if a.header.Get("X-Joulemux-Warning") != "options.num_gpu has no name there" || report["tokens_generated"] != 3.0 {
		t.Errorf("Ollama's: %v, %v", a.header, report)
	}
	a = ask(t, d, "POST", "/api/generate", `{"model":"tiny","prompt":"x","template":"{{.Prompt}}"}`)
	if a.status != http.StatusBadRequest || !strings.Contains(a.body, `"code":"unsupported","field":"template"`) {
		t.Errorf("a template: %d %s", a.status, a.body)
	}
	a = ask(t, d, "POST", "/api/generate", `{"model":"tiny","keep_alive":0}`)
	if a.status != http.StatusNotImplemented || !strings.Contains(a.body, "cannot be told to let go") {
		t.Errorf("an unload: %d %s", a.status, a.body)
	}
	var list []wire.Backend
	var all struct{ Backends []wire.Backend }
	a = ask(t, d, "GET", "/joulemux/v1/backends", "")
	if json.Unmarshal([]byte(a.body), &all) == nil {
		list = all.Backends
	}
	if len(list) != 1 || list[0].Type != "openai" || fmt.Sprint(list[0].Lacks) != "[keep_alive pull unload]" {
		t.Errorf("backends: %s", a.body)
	}
}

// says is a server that answers GETs with the same text by path.
func says(answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, body)
	})
}

func TestServersAreAskedWhatTheyAre(t *testing.T) {
	const list = `{"data":[{"id":"m","owned_by":"%s"}]}`
	for _, c := range []struct {
		name    string
		answers map[string]string
		kind    string
		problem string
	}{
		{"Ollama, which speaks both", map[string]string{"/api/version": `{"version":"0.17.4"}`, "/api/tags": `{"models":[]}`, "/api/ps": `{}`, "/v1/models": fmt.Sprintf(list, "library")}, "ollama", ""},
		{"Lemonade, which speaks both", map[string]string{"/api/version": `{"version":"0.16.1"}`, "/api/tags": `{"models":[]}`, "/v1/models": fmt.Sprintf(list, "lemonade"), "/v1/health": `{"version":"11"}`}, "lemonade", ""},
		{"FastFlowLM", map[string]string{"/api/version": `{"version":"0.9"}`, "/api/tags": `{"models":[]}`, "/api/npu/status": `{}`, "/v1/models": fmt.Sprintf(list, "flm")}, "fastflowlm", ""},
		{"OpenVINO Model Server", map[string]string{"/v3/models": fmt.Sprintf(list, "OVMS")}, "ovms", ""},
		{"something else", map[string]string{"/": "hello"}, "auto", "it speaks neither Ollama's API (GET /api/version: 404 Not Found) nor OpenAI's (GET /v3/models: 404 Not Found)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := daemontest.Serve(t, says(c.answers))
			d := daemontest.Start(t, daemontest.Options{Lonely: true, Config: `backends: [{id: x, hardware: npu, endpoint: "http://` + addr + `"}]` + "\n"})
			var all struct{ Backends []wire.Backend }
			a := ask(t, d, "GET", "/joulemux/v1/backends", "")
			if err := json.Unmarshal([]byte(a.body), &all); err != nil || len(all.Backends) != 1 {
				t.Fatal(a.body, err)
			}
			if b := all.Backends[0]; b.Type != c.kind || b.Status.Message != c.problem {
				t.Errorf("it is %s, %q", b.Type, b.Status.Message)
			}
		})
	}
}
