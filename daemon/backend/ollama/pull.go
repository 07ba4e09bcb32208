package ollama

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ollama/ollama/api"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/job"
)

// longestStep is the longest line about a pull. They are of a hundred bytes.
const longestStep = 64 << 10

// Step is what a server says of its work at a pull: in words and, where it is at
// one, of a part of the model with that digest, in bytes.
type Step struct {
	Status, Digest   string
	Total, Completed int64
}

// CutError is the error of a pull that broke off without the server's saying why.
type CutError struct{ Err error }

// Error says what broke.
func (c *CutError) Error() string { return c.Err.Error() }

// Unwrap returns what broke.
func (c *CutError) Unwrap() error { return c.Err }

// Pull asks a server, by its Do, to fetch a model, and calls each with what it
// says of its work. It returns when the model is there. The error is a *job.Error
// in the server's words, a *CutError, or ctx's.
func Pull(ctx context.Context, do func(*http.Request) (*http.Response, error), model string, insecure bool, each func(Step)) error {
	body, err := json.Marshal(api.PullRequest{Model: model, Insecure: insecure})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/api/pull", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusBadRequest {
			return pullRefused(resp)
		}
		err = readPull(resp.Body, each)
	}
	var said *job.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, errors.As(err, &said):
		return err
	default:
		return &CutError{err}
	}
}

// pullRefused is the error of a pull that did not begin. A server that has no
// such thing answers in the words of whoever stands in for it.
func pullRefused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, endpoint.MaxError))
	said := message(body, resp.Status)
	switch resp.StatusCode {
	case http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return job.Errorf(job.Unsupported, "%s", said)
	case http.StatusBadRequest:
		return job.InvalidField("model", "%s", said)
	default:
		return pullFailed(said)
	}
}

// readPull reads what a server says of its work. The error is a *job.Error if it
// has said it.
func readPull(body io.Reader, each func(Step)) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, longestStep)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var step struct {
			Step
			Error string
		}
		if err := json.Unmarshal(lines.Bytes(), &step); err != nil {
			return fmt.Errorf("what it says of the pull cannot be read: %w", err)
		}
		if step.Error != "" {
			return pullFailed(step.Error)
		}
		each(step.Step)
		if step.Status == "success" {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// pullFailed is the error in which a server says why a pull failed. That there is
// no such model it says in the words of its file system, and has no other.
func pullFailed(said string) error {
	if strings.HasPrefix(said, "pull model manifest:") && strings.HasSuffix(said, "file does not exist") {
		return job.Errorf(job.ModelNotFound, "the registry has no such model")
	}
	return job.Errorf(job.BackendFailed, "%s", said)
}
