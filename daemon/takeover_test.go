package daemon_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/daemontest"
)

// out is a server that tells what it has, and fails every job.
func out(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, `{"error":"out of memory"}`, http.StatusInternalServerError)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// plain is a server that has only Ollama's own API.
func plain(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Whoever takes over from a server that fails may speak another dialect than that,
// and than the client.
func TestTheNextInLineMayKnowOtherWords(t *testing.T) {
	const (
		png      = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
		schema   = `{"type":"object","properties":{"city":{"type":"string"}}}`
		function = `{"type":"function","function":{"name":"get_weather","description":"d","parameters":` + schema + `}}`
		chat     = `"tools":[` + function + `],"messages":[{"role":"user","content":[{"type":"text","text":"Why?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + png + `"}}]}]`
	)
	asks := map[string]string{
		"/api/chat":            `"tools":[` + function + `],"messages":[{"role":"user","content":"Why?","images":["` + png + `"]}]`,
		"/v1/chat/completions": chat,
		"/v1/messages": `"max_tokens":50,"tools":[{"name":"get_weather","input_schema":` + schema + `}],"messages":[{"role":"user","content":[{"type":"text","text":"Why?"},` +
			`{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + png + `"}}]}]`,
		"/v1/responses": `"tools":[{"type":"function","name":"get_weather","parameters":` + schema + `}],"input":[{"role":"user","content":[{"type":"input_text","text":"Why?"},` +
			`{"type":"input_image","image_url":"data:image/png;base64,` + png + `"}]}]`,
	}
	ollama, openAI := daemontest.CannedOllama(), daemontest.CannedOpenAI()
	for _, c := range []struct {
		first, second http.Handler
		kinds         [2]string
		path          string
	}{
		{out(ollama), openAI, [2]string{"ollama", "openai"}, "/api/chat"},
		{out(ollama), openAI, [2]string{"ollama", "openai"}, "/v1/chat/completions"},
		{out(ollama), openAI, [2]string{"ollama", "openai"}, "/v1/messages"},
		{out(ollama), openAI, [2]string{"ollama", "openai"}, "/v1/responses"},
		{out(openAI), plain(ollama), [2]string{"openai", "ollama"}, "/api/chat"},
		{out(openAI), plain(ollama), [2]string{"openai", "ollama"}, "/v1/chat/completions"},
	} {
		config := `
backends:
  - {id: first, type: ` + c.kinds[0] + `, hardware: npu, endpoint: "http://` + daemontest.Serve(t, c.first) + `"}
  - {id: second, type: ` + c.kinds[1] + `, hardware: cpu, endpoint: "http://` + daemontest.Serve(t, c.second) + `"}
`
		for _, stream := range []string{"true", "false"} {
			d := daemontest.Start(t, daemontest.Options{Config: config})
			got := ask(t, d, "POST", c.path, `{"model":"`+model+`","stream":`+stream+`,`+asks[c.path]+`,"joulemux":{"prefer_power_efficiency":true}}`)
			if got.status != http.StatusOK || got.header.Get("X-Backend-Used") != "second" || !strings.Contains(got.body, "get_weather") || !strings.Contains(got.body, `"failed_attempts":["first: `) {
				t.Errorf("%s, %v, stream: %s: %d %v\n%s", c.path, c.kinds, stream, got.status, got.header, got.body)
			}
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
}
