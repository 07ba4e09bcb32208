package rig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// CreateModel makes a model of a GGUF file known to the Ollama at url. It is
// meant for the tiny model, which never ends by itself: unless a request says
// otherwise, it stops after 48 tokens.
func CreateModel(ctx context.Context, url, name, gguf string) error {
	blob, err := os.ReadFile(gguf)
	if err != nil {
		return err
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
	if err := request(ctx, http.MethodPost, url+"/api/blobs/"+digest, blob); err != nil {
		return fmt.Errorf("create model %s: %w", name, err)
	}
	recipe, err := json.Marshal(map[string]any{
		"model":      name,
		"stream":     false,
		"files":      map[string]string{"model.gguf": digest},
		"template":   "{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}",
		"parameters": map[string]any{"num_predict": 48},
	})
	if err != nil {
		return err
	}
	if err := request(ctx, http.MethodPost, url+"/api/create", recipe); err != nil {
		return fmt.Errorf("create model %s: %w", name, err)
	}
	return nil
}

// request makes a request of which only the success is of interest.
func request(ctx context.Context, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Close = true // Leave no idle connection behind.
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}
