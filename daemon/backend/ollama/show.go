package ollama

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/job"
)

// Show asks a server, by its Do, what a model is. That loads nothing.
func Show(ctx context.Context, do func(*http.Request) (*http.Response, error), model string) (d job.Description, err error) {
	body, err := json.Marshal(api.ShowRequest{Model: model})
	if err != nil {
		return d, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/api/show", bytes.NewReader(body))
	if err != nil {
		return d, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := do(req)
	if err != nil {
		return d, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxBody)); err != nil {
		return d, err
	}
	if resp.StatusCode != http.StatusOK {
		return d, fmt.Errorf("POST /api/show: %s", message(body, resp.Status))
	}
	return shown(body)
}

// shown reads what a server says of a model. Its context is under a key that has
// the architecture's name.
func shown(body []byte) (d job.Description, err error) {
	var s struct {
		Details      api.ModelDetails           `json:"details"`
		Info         map[string]json.RawMessage `json:"model_info"`
		Capabilities []string                   `json:"capabilities"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return d, fmt.Errorf("POST /api/show: %w", err)
	}
	d = described(s.Details)
	d.Abilities = s.Capabilities
	for key, value := range s.Info {
		var context float64
		if strings.HasSuffix(key, ".context_length") && json.Unmarshal(value, &context) == nil && context > 0 && context < mostContext {
			d.Context = max(d.Context, int(context))
		}
	}
	return d, nil
}

// mostContext is more tokens than any model takes.
const mostContext = 1 << 40

// described is what a listing says of a model. What it does not know it may call
// that.
func described(m api.ModelDetails) job.Description {
	d := job.Description{Family: m.Family, Parameters: m.ParameterSize, Quantisation: m.QuantizationLevel}
	if strings.EqualFold(d.Quantisation, "unknown") {
		d.Quantisation = ""
	}
	return d
}
