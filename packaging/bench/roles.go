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
	"strconv"
	"strings"
	"time"
)

// The roles that this program plays in processes of their own. Their listening
// sockets are handed to them, if they have any.
const (
	rolePrefix  = "role:"
	fakeBackend = rolePrefix + "fake-backend"
	fakeOpenAI  = rolePrefix + "fake-openai"
	bareProxy   = rolePrefix + "bare-proxy"
	bareService = rolePrefix + "bare-service" // of the library that joulemuxd has for gRPC
	grpcService = rolePrefix + "grpc-service" // the same of gRPC's own
	slackStart  = rolePrefix + "slack-start"
)

// firstSocket is the descriptor after standard error (exec.Cmd.ExtraFiles).
const firstSocket = 3

func play(role string, args []string) error {
	if role == slackStart {
		return startSlack(args)
	}
	l, err := net.FileListener(os.NewFile(firstSocket, "listener"))
	if err != nil {
		return err
	}
	switch {
	case role == fakeBackend && len(args) == 1:
		models, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return http.Serve(l, newFake(models))
	case role == fakeOpenAI:
		return http.Serve(l, newFakeOpenAI())
	case role == bareProxy && len(args) == 1:
		return serveProxy(l, args[0])
	case role == bareService && len(args) == 1:
		return serveService(l, newForwarder(args[0]))
	case role == grpcService && len(args) == 1:
		return serveGRPC(l, newForwarder(args[0]))
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

// model is what the fake backend claims to have, with slowModel, the pieces of
// which come apart from each other whoever asks, and others that it only counts.
// The one that speaks OpenAI's API alone has otherModel.
const (
	model      = "llama3.2:1b"
	slowModel  = "llama3.2:3b"
	otherModel = "qwen3:4b"
)

// numbered is another model.
func numbered(n int) string { return fmt.Sprintf("model-%d:1b", n) }

// pieces is how many pieces its streams have, besides the last line.
const pieces = 200

// fake answers as an Ollama whose model takes no time. It says the same for
// ever, and so costs little beside what is measured.
type fake struct{ piece, last, whole, generated, done []byte }

func newFake(models int) http.Handler {
	const head = `{"model":"` + model + `","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":"`
	const end = `"},"done":true,"done_reason":"stop","total_duration":2012000000,"load_duration":1000000,` +
		`"prompt_eval_count":180,"prompt_eval_duration":11000000,"eval_count":200,"eval_duration":2000000000}` + "\n"
	const text = `{"model":"` + model + `","created_at":"2026-01-01T00:00:00.123456789Z","response":"`
	f := &fake{
		piece: []byte(head + ` light"},"done":false}` + "\n"),
		last:  []byte(head + end),
		whole: []byte(head + strings.Repeat(" light", pieces) + end),

		generated: []byte(text + ` light","done":false}` + "\n"),
		done:      []byte(text + strings.Replace(end, `"}`, `"`, 1)),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/chat", f.chat)
	mux.HandleFunc("POST /api/generate", f.generate)
	mux.HandleFunc("POST /v1/chat/completions", complete)
	mux.HandleFunc("POST /v1/messages", answerMessage)
	var list strings.Builder
	list.WriteString(listed(model) + "," + listed(slowModel))
	for n := range models {
		list.WriteString("," + listed(numbered(n)))
	}
	for path, says := range map[string]string{
		"/api/version": `{"version":"0.17.4"}`,
		"/api/tags":    `{"models":[` + list.String() + `]}`,
		"/api/ps":      `{"models":[` + listed(model) + "," + listed(slowModel) + `]}`,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = io.WriteString(w, says)
		})
	}
	return mux
}

func listed(model string) string {
	return `{"name":"` + model + `","model":"` + model + `","size":1321098329,"digest":"` + strings.Repeat("baf6a787fdff", 5) + "f00d" + `"}`
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
	stream(w, pieces, string(f.piece), string(f.last), resting(time.Duration(q.Options.Pause)*time.Microsecond))
}

// generate answers in a stream. A request without a prompt only says for how long
// a model stays.
func (f *fake) generate(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model, Prompt string
		Options       struct {
			Pieces int `json:"num_predict"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, `{"error":"no JSON"}`, http.StatusBadRequest)
		return
	}
	if q.Prompt == "" {
		_, _ = io.WriteString(w, `{"model":"`+model+`","response":"","done":true,"done_reason":"load"}`)
		return
	}
	wait := func() {}
	if q.Model == slowModel {
		wait = paced(pace)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	stream(w, q.Options.Pieces, string(f.generated), string(f.done), wait)
}

// pace is the time between the pieces of slowModel's streams: five hundred a second.
const pace = 2 * time.Millisecond

// resting waits that long between pieces.
func resting(d time.Duration) func() { return func() { time.Sleep(d) } }

// paced waits until the next piece is due, as a model does that works on something
// else than the processor: when it has been held up, it does not rest as long.
func paced(every time.Duration) func() {
	due := time.Now()
	return func() {
		due = due.Add(every)
		time.Sleep(time.Until(due))
	}
}

// stream writes pieces one at a time, waiting after each, and the end.
func stream(w http.ResponseWriter, count int, piece, end string, wait func()) {
	control := http.NewResponseController(w)
	for range count {
		_, err := io.WriteString(w, piece)
		if err != nil || control.Flush() != nil {
			return // the client is gone
		}
		wait()
	}
	_, _ = io.WriteString(w, end)
}

// newFakeOpenAI is a fake that speaks OpenAI's API alone.
func newFakeOpenAI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", complete)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"`+otherModel+`","object":"model","created":1,"owned_by":"somebody"}]}`)
	})
	return mux
}

// The events of a stream, as Ollama writes them.
const (
	eventHead  = `data: {"id":"chatcmpl-719","object":"chat.completion.chunk","created":1780000000,"model":"` + model + `","system_fingerprint":"fp_ollama","choices":[`
	pieceEvent = eventHead + `{"index":0,"delta":{"role":"assistant","content":" light"},"finish_reason":null}]}` + "\n\n"
	stopEvent  = eventHead + `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}` + "\n\n"
	usageEvent = eventHead + `],"usage":{"prompt_tokens":180,"completion_tokens":200,"total_tokens":380}}` + "\n\n"
	doneEvent  = "data: [DONE]\n\n"
)

// complete answers in a stream whose pieces come one at a time.
func complete(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Options struct {
			Usage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, `{"error":{"message":"no JSON"}}`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	end := stopEvent
	if q.Options.Usage {
		end += usageEvent
	}
	stream(w, pieces, pieceEvent, end+doneEvent, resting(pause*time.Microsecond))
}

// The events of a message, as Ollama writes them.
const (
	messageStart = `event: message_start` + "\n" + `data: {"type":"message_start","message":{"id":"msg_719","type":"message","role":"assistant","model":"` + model + `","content":[],"usage":{"input_tokens":0,"output_tokens":0}}}` + "\n\n"
	messagePiece = `event: content_block_delta` + "\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" light"}}` + "\n\n"
	messageEnd   = `event: content_block_stop` + "\n" + `data: {"type":"content_block_stop","index":0}` + "\n\n" +
		`event: message_delta` + "\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":180,"output_tokens":200}}` + "\n\n" +
		`event: message_stop` + "\n" + `data: {"type":"message_stop"}` + "\n\n"
)

// answerMessage answers in a stream whose pieces come one at a time.
func answerMessage(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, messageStart)
	stream(w, pieces, messagePiece, messageEnd, resting(pause*time.Microsecond))
}
