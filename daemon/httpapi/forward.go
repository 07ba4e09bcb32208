package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
)

// serverOf is a backend to send requests that are no jobs.
type serverOf struct {
	id     string
	server backend.Server
}

// send sends a client's request with another body.
func (b serverOf) send(r *http.Request, body []byte) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return b.server.Do(out)
}

// forward answers a request with a backend's answer.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, b serverOf, body []byte) {
	resp, err := b.send(r, body)
	if err != nil {
		fail(w, &job.Error{Code: job.BackendFailed, Detail: b.id, Err: err})
		return
	}
	s.pass(w, r, b.id, resp)
}

// tell sends a client's request whose answer nobody wants; it is read all the
// same, so that its connection can be used again.
func (b serverOf) tell(r *http.Request, body []byte) error {
	resp, err := b.send(r, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.CopyN(io.Discard, resp.Body, 64<<10)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case resp.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("it answers %s", resp.Status)
	default:
		return nil
	}
}

// pass copies a backend's answer as it comes; a part of it ends as broken.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, id string, resp *http.Response) {
	defer resp.Body.Close()
	h := w.Header()
	h.Set("X-Backend-Used", id)
	h.Set("Content-Type", resp.Header.Get("Content-Type"))
	if resp.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	out := s.client(w)
	buf := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if out.send(r.Context(), buf[:n]) != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = out.send(r.Context(), nil) // the end, which may be all there is, has a deadline of its own
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// listTimeout is how long one server may take to list what it has.
const listTimeout = 2 * time.Second

// maxList is the longest listing that is read.
const maxList = 16 << 20

// collect asks every healthy backend for a list, and returns their entries,
// each as the backend wrote it, in the order of the backends.
func (s *Server) collect(r *http.Request, path string) [][]json.RawMessage {
	backends := s.Backends.LookHere(r.Context())
	lists := make([][]json.RawMessage, len(backends))
	var all sync.WaitGroup
	for i, b := range backends {
		if b.Remote() { // nobody asks it for what is known
			lists[i] = listRemote(b, path)
			continue
		}
		if !b.Healthy {
			continue
		}
		all.Go(func() {
			list, err := entries(r.Context(), b.Server(), path)
			if err != nil {
				s.Log.Warn("backend gives no list", "backend", b.ID, "path", path, "err", err)
			}
			lists[i] = list
		})
	}
	all.Wait()
	return lists
}

// entries asks one server for a list of models.
func entries(ctx context.Context, server backend.Server, path string) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := server.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	if err != nil {
		return nil, err
	}
	var list struct{ Models []json.RawMessage }
	err = json.Unmarshal(body, &list)
	return slices.DeleteFunc(list.Models, elsewhere), err
}

// elsewhere reports whether an entry is of a model that its server would have run
// by somebody else's, to which no job is sent through it.
func elsewhere(entry json.RawMessage) bool {
	var m struct {
		Host string `json:"remote_host"`
	}
	return json.Unmarshal(entry, &m) == nil && m.Host != ""
}
