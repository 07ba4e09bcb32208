package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"
)

// The roles that this program plays in processes of their own. Their listening
// sockets are handed to them.
const (
	rolePrefix  = "role:"
	fakeBackend = rolePrefix + "fake-backend"
	bareProxy   = rolePrefix + "bare-proxy"
)

// firstSocket is the descriptor after standard error (exec.Cmd.ExtraFiles).
const firstSocket = 3

func play(role string, args []string) error {
	l, err := net.FileListener(os.NewFile(firstSocket, "listener"))
	if err != nil {
		return err
	}
	switch {
	case role == fakeBackend:
		return http.Serve(l, newFake())
	case role == bareProxy && len(args) == 1:
		return serveProxy(l, args[0])
	default:
		return fmt.Errorf("no such role: %s %v", role, args)
	}
}

// serveProxy serves the least that could route by model: a reverse proxy that
// has looked for the model in the request.
func serveProxy(l net.Listener, backend string) error {
	to, err := url.Parse(backend)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var q struct{ Model string }
		if err := errors.Join(err, json.Unmarshal(body, &q)); err != nil || q.Model == "" {
			http.Error(w, "no model", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
}

// model is what the fake backend claims to have.
const model = "llama3.2:1b"

// pieces is how many pieces its streams have, besides the last line.
const pieces = 200

// fake answers as an Ollama whose model takes no time. It says the same for
// ever, and so costs little beside what is measured.
type fake struct{ piece, last, whole []byte }

func newFake() http.Handler {
	const head = `{"model":"` + model + `","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":"`
	const end = `"},"done":true,"done_reason":"stop","total_duration":2012000000,"load_duration":1000000,` +
		`"prompt_eval_count":180,"prompt_eval_duration":11000000,"eval_count":200,"eval_duration":2000000000}` + "\n"
	f := &fake{
		piece: []byte(head + ` light"},"done":false}` + "\n"),
		last:  []byte(head + end),
		whole: []byte(head + strings.Repeat(" light", pieces) + end),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/chat", f.chat)
	for path, says := range map[string]string{
		"/api/version": `{"version":"0.17.4"}`,
		"/api/tags":    `{"models":[{"name":"` + model + `","model":"` + model + `","size":1321098329,"digest":"baf6a787fdff"}]}`,
		"/api/ps":      `{"models":[{"name":"` + model + `","model":"` + model + `","size":1321098329,"digest":"baf6a787fdff"}]}`,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, says)
		})
	}
	return mux
}

// chat answers in one piece, or in a stream whose pieces come one at a time.
func (f *fake) chat(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Stream  *bool
		Options struct{ Pause int } // between pieces, in microseconds
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, `{"error":"no JSON"}`, http.StatusBadRequest)
		return
	}
	if q.Stream != nil && !*q.Stream {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(f.whole)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	for range pieces {
		_, err := w.Write(f.piece)
		if err != nil || control.Flush() != nil {
			return // the client is gone
		}
		time.Sleep(time.Duration(q.Options.Pause) * time.Microsecond)
	}
	_, _ = w.Write(f.last)
}
