package ollama

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// own is a server with nothing but Ollama's own paths, and one more that it is
// given. It answers a chat with what is in answer.
func own(t *testing.T, more, answer string, asked *[]string) *Server {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*asked = append(*asked, r.URL.Path+" "+string(body))
		switch {
		case r.URL.Path == more:
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, `data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}`+"\n\n"+`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
		case strings.HasPrefix(r.URL.Path, "/api/") && strings.HasPrefix(answer, `{"error"`):
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, answer)
		case strings.HasPrefix(r.URL.Path, "/api/"):
			_, _ = io.WriteString(w, answer)
		default:
			http.NotFound(w, r)
		}
	})
}

// foreign is a job of another dialect than Ollama's.
func foreign(d job.Dialect, path, body string) job.Job {
	j := passed(path, body)
	j.Original.Dialect, j.Model, j.ID, j.Stream = d, "m", "1", strings.Contains(body, `"stream":true`)
	if path == "/v1/embeddings" {
		j.Kind = job.Embed
	}
	return j
}

func TestWhatAServerHasNoPathForIsAskedInItsOwnWords(t *testing.T) {
	const chat = `"model":"m","messages":[{"role":"user","content":"hi"}]`
	keep := time.Minute
	for name, c := range map[string]struct {
		job          job.Job
		more, answer string
		asks, says   string
		tokens       int
	}{
		"a chat": {
			foreign(job.OpenAI, "/v1/chat/completions", `{`+chat+`}`), "", strings.TrimSpace(last), `/api/chat {`, `"object":"chat.completion"`, 3,
		},
		"a stream": {
			foreign(job.OpenAI, "/v1/chat/completions", `{`+chat+`,"stream":true}`), "", first + next + last, `/api/chat {`, `"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n", 3,
		},
		"a completion": {
			foreign(job.OpenAI, "/v1/completions", `{"model":"m","prompt":"hi"}`), "", `{"response":"x","done":true,"eval_count":2}`, `/api/generate {`, `"text":"x"`, 2,
		},
		"vectors": {
			foreign(job.OpenAI, "/v1/embeddings", `{"model":"m","input":"hi"}`), "", `{"embeddings":[[1]],"prompt_eval_count":1}`, `/api/embed {`, `"embedding":[1]`, 0,
		},
		"a message": {
			foreign(job.Anthropic, "/v1/messages", `{`+chat+`,"max_tokens":5,"stream":true}`), "/v1/chat/completions", "", `/v1/chat/completions {`, "event: message_stop", 0,
		},
		"a response": {
			foreign(job.OpenAI, "/v1/responses", `{"model":"m","input":"hi","stream":true}`), "/v1/chat/completions", "", `/v1/chat/completions {`, "event: response.completed", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			s := own(t, c.more, c.answer, &asked)
			if c.more == "" {
				c.job.KeepAlive = &keep
			}
			o := stream(t, s, c.job)
			if o.err != nil || o.head.Status != 200 || !strings.Contains(o.raw(), c.says) || o.chunks[len(o.chunks)-1].Usage.Tokens != c.tokens {
				t.Errorf("it is answered %+v %s", o, o.raw())
			}
			if c.job.Stream != strings.HasPrefix(o.head.ContentType, "text/event-stream") {
				t.Errorf("as %q", o.head.ContentType)
			}
			if len(asked) != 2 || !strings.HasPrefix(asked[1], c.asks) || !strings.Contains(asked[1], `"model":"m"`) || strings.Contains(asked[1], `"keep_alive":60`) != (c.more == "") {
				t.Errorf("it was asked %q", asked)
			}
		})
	}
}

func TestWhatAServerSaysOfAModelIsNoLackOfAPath(t *testing.T) {
	var asked []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":{"message":"model \"m\" not found","type":"not_found_error","param":null,"code":null}}`)
	})
	o := stream(t, s, foreign(job.OpenAI, "/v1/chat/completions", `{"model":"m"}`))
	if e := jobError(t, o.err); e.Code != job.ModelNotFound || len(asked) != 1 || !strings.Contains(string(e.Answer.Body), "not found") {
		t.Errorf("%v after %q", o.err, asked)
	}
	asked = nil
	s = own(t, "", `{"error":"model 'm' not found"}`, &asked)
	o = stream(t, s, foreign(job.OpenAI, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}`))
	if e := jobError(t, o.err); e.Code != job.ModelNotFound || o.begun != 0 || e.Answer.Dialect != job.OpenAI || !strings.Contains(string(e.Answer.Body), `"message":"model 'm' not found"`) {
		t.Errorf("%v after %q", o.err, asked)
	}
}

func TestAnErrorInAStreamIsNotToldInAnotherDialect(t *testing.T) {
	var asked []string
	s := own(t, "", first+`{"error":"out of memory"}`+"\n", &asked)
	o := stream(t, s, foreign(job.OpenAI, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}`))
	if e := jobError(t, o.err); e.Code != job.BackendFailed || e.Told || !strings.Contains(e.Error(), "out of memory") || strings.Contains(o.raw(), "out of memory") {
		t.Errorf("%v after %s", o.err, o.raw())
	}
}

func jobError(t *testing.T, err error) *job.Error {
	t.Helper()
	var e *job.Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %v", err)
	}
	return e
}
