package daemontest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ollama/ollama/api"
)

// order is what a request asks of its answer, whichever of the two it is.
type order struct {
	prompt   []string // as words: one without any only loads the model
	limit    int      // of words; zero is none
	tools    bool
	logprobs bool
	top      int  // how many alternatives each token has
	whole    bool // the answer is not to come in pieces
}

// piece is one line of an answer.
type piece struct {
	text     string
	calls    []api.ToolCall
	logprobs []api.Logprob
	done     string // the reason for the end, in the last piece
	metrics  api.Metrics
}

// answer writes the pieces in the shape that its caller gives them.
func (o order) answer(w http.ResponseWriter, shape func(piece) any) {
	pieces := o.pieces()
	if o.whole {
		write(w, shape(join(pieces)))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	for _, p := range pieces {
		if lines.Encode(shape(p)) != nil || flush.Flush() != nil {
			return // The client is gone.
		}
	}
}

// pieces returns the answer, a word at a time.
func (o order) pieces() []piece {
	if len(o.prompt) == 0 {
		return []piece{{done: "load"}}
	}
	words := strings.SplitAfter(text, " ")
	if o.limit > 0 {
		words = words[:min(o.limit, len(words))]
	}
	var list []piece
	if o.tools {
		list = append(list, piece{calls: []api.ToolCall{toolCall()}})
	} else {
		for _, word := range words {
			list = append(list, piece{text: word, logprobs: o.logprobsOf(word)})
		}
	}
	return append(list, piece{done: "stop", metrics: metrics(len(o.prompt), len(list))})
}

// join makes one piece of all.
func join(pieces []piece) piece {
	whole := pieces[len(pieces)-1]
	for _, p := range pieces[:len(pieces)-1] {
		whole.text += p.text
		whole.calls = append(whole.calls, p.calls...)
		whole.logprobs = append(whole.logprobs, p.logprobs...)
	}
	return whole
}

// metrics invents the times of a machine that reads a token in a millisecond
// and writes one in ten.
func metrics(read, written int) api.Metrics {
	m := api.Metrics{
		LoadDuration:    time.Millisecond,
		PromptEvalCount: read, PromptEvalDuration: time.Duration(read) * time.Millisecond,
		EvalCount: written, EvalDuration: time.Duration(written) * 10 * time.Millisecond,
	}
	m.TotalDuration = m.LoadDuration + m.PromptEvalDuration + m.EvalDuration
	return m
}

// logprobsOf returns a word's own logarithm, and those of the words that might
// have been in its place, the likeliest first.
func (o order) logprobsOf(word string) []api.Logprob {
	if !o.logprobs {
		return nil
	}
	l := api.Logprob{TokenLogprob: logprob(word, 0)}
	for rank := range o.top {
		l.TopLogprobs = append(l.TopLogprobs, logprob(fmt.Sprintf("w%d", rank), rank))
	}
	return []api.Logprob{l}
}

func logprob(token string, rank int) api.TokenLogprob {
	var ints []int
	for _, b := range []byte(token) {
		ints = append(ints, int(b))
	}
	return api.TokenLogprob{Token: token, Logprob: -0.1 - float64(rank), Bytes: ints}
}

// toolCall calls the tool that the suite offers.
func toolCall() api.ToolCall {
	arguments := api.NewToolCallFunctionArguments()
	arguments.Set("location", "San Francisco, CA")
	return api.ToolCall{ID: "call_1", Function: api.ToolCallFunction{Name: "get_weather", Arguments: arguments}}
}
