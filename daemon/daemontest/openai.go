package daemontest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ollama/ollama/api"
)

// CannedOpenAI returns a server of OpenAI's API, and of no other, that answers as
// CannedOllama does. It calls itself nothing in particular: there are a dozen
// programs like it.
func CannedOpenAI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		list := []map[string]any{}
		for _, name := range CannedModels() {
			list = append(list, map[string]any{"id": name, "object": "model", "created": modified().Unix(), "owned_by": "nobody"})
		}
		write(w, map[string]any{"object": "list", "data": list})
	})
	mux.HandleFunc("POST /v1/chat/completions", openAIChat)
	mux.HandleFunc("POST /v1/completions", openAICompletion)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		openAIRefuse(w, http.StatusNotFound, "there is no "+r.URL.Path)
	})
	return mux
}

// openAIRequest is what matters in a request for a text, of either kind.
type openAIRequest struct {
	Model     string
	Prompt    string
	Messages  []struct{ Content any }
	MaxTokens int `json:"max_tokens"`
	Most      int `json:"max_completion_tokens"`
	Stream    bool
	Options   struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
	Tools []any
	// Logprobs is a flag in a chat, with the number beside it, and the number
	// itself in a completion.
	Logprobs any
	Top      int `json:"top_logprobs"`
}

func openAIChat(w http.ResponseWriter, r *http.Request) {
	openAIAnswer(w, r, "chat.completion", func(p piece, streamed bool) map[string]any {
		message := map[string]any{"content": p.text}
		if !streamed {
			message["role"] = "assistant"
		}
		for i, c := range p.calls {
			arguments, _ := json.Marshal(c.Function.Arguments)
			message["tool_calls"] = []any{map[string]any{
				"index": i, "id": c.ID, "type": "function",
				"function": map[string]any{"name": c.Function.Name, "arguments": string(arguments)},
			}}
		}
		choice := map[string]any{"index": 0, "finish_reason": finish(p)}
		choice[map[bool]string{true: "delta", false: "message"}[streamed]] = message
		if len(p.logprobs) > 0 {
			choice["logprobs"] = map[string]any{"content": p.logprobs}
		}
		return choice
	})
}

func openAICompletion(w http.ResponseWriter, r *http.Request) {
	openAIAnswer(w, r, "text_completion", func(p piece, _ bool) map[string]any {
		choice := map[string]any{"index": 0, "text": p.text, "finish_reason": finish(p)}
		if len(p.logprobs) > 0 {
			choice["logprobs"] = inCompletion(p.logprobs)
		}
		return choice
	})
}

// inCompletion writes likelihoods as the API had them first.
func inCompletion(list []api.Logprob) map[string]any {
	var tokens []string
	var logprobs []float64
	var tops []map[string]float64
	for _, l := range list {
		top := make(map[string]float64)
		for _, other := range l.TopLogprobs {
			top[other.Token] = other.Logprob
		}
		tokens, logprobs, tops = append(tokens, l.Token), append(logprobs, l.Logprob), append(tops, top)
	}
	return map[string]any{"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}
}

func finish(p piece) any {
	switch {
	case p.done == "":
		return nil
	case len(p.calls) > 0:
		return "tool_calls"
	default:
		return p.done
	}
}

// openAIAnswer answers a request, each piece shaped as a choice.
func openAIAnswer(w http.ResponseWriter, r *http.Request, object string, shape func(p piece, streamed bool) map[string]any) {
	var q openAIRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&q); err != nil {
		openAIRefuse(w, http.StatusBadRequest, err.Error())
		return
	}
	envelope := map[string]any{"id": "canned-1", "object": object, "created": time.Now().Unix(), "model": q.Model}
	pieces := q.order().pieces()
	if !q.Stream {
		whole := join(pieces)
		envelope["choices"], envelope["usage"] = []any{shape(whole, false)}, usage(whole)
		write(w, envelope)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if object == "chat.completion" {
		envelope["object"] = "chat.completion.chunk"
	}
	tell := func(v any) {
		event, _ := json.Marshal(v)
		_, _ = fmt.Fprintf(w, "data: %s\n\n", event)
		_ = http.NewResponseController(w).Flush() // a client that is gone needs no answer
	}
	called := false
	for _, p := range pieces {
		called = called || len(p.calls) > 0
		choice := shape(p, true)
		if p.done != "" && called {
			choice["finish_reason"] = "tool_calls"
		}
		envelope["choices"] = []any{choice}
		tell(envelope)
	}
	if q.Options.Usage {
		envelope["choices"], envelope["usage"] = []any{}, usage(pieces[len(pieces)-1])
		tell(envelope)
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// order returns what the request asks of its answer.
func (q *openAIRequest) order() order {
	o := order{prompt: strings.Fields(q.Prompt), limit: max(q.MaxTokens, q.Most), tools: len(q.Tools) > 0, top: q.Top}
	for _, m := range q.Messages {
		o.prompt = append(o.prompt, strings.Fields(fmt.Sprint(m.Content))...)
	}
	switch asked := q.Logprobs.(type) {
	case bool:
		o.logprobs = asked
	case float64:
		o.logprobs, o.top = true, int(asked)
	}
	return o
}

func usage(last piece) map[string]int {
	m := last.metrics
	return map[string]int{
		"prompt_tokens": m.PromptEvalCount, "completion_tokens": m.EvalCount, "total_tokens": m.PromptEvalCount + m.EvalCount,
	}
}

func openAIRefuse(w http.ResponseWriter, status int, why string) {
	respond(w, status, map[string]any{"error": map[string]any{"message": why, "type": "invalid_request_error", "code": status}})
}
