package httpapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/job"
)

// openAI returns the handler of an endpoint of OpenAI's API that runs jobs.
func (s *Server) openAI(kind job.Kind) http.HandlerFunc {
	return s.speaking(inOpenAI, func(path string, body []byte) (job.Job, report, error) {
		return openAIJob(kind, path, body)
	})
}

// speaking returns the handler of an endpoint that runs the jobs which understand
// makes of requests, and says where the report is wanted.
func (s *Server) speaking(in tongue, understand func(path string, body []byte) (job.Job, report, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := s.readBody(w, r)
		if err != nil {
			in.fail(w, err)
			return
		}
		j, wants, err := understand(r.URL.Path, body)
		if err == nil {
			err = door.Annotate(&j, r.Header)
		}
		if err != nil {
			in.fail(w, err)
			return
		}
		s.run(w, r, in, j, wants)
	}
}

// openAIRequest is what matters to us in a request of OpenAI's dialect. All else
// is the backend's to judge.
type openAIRequest struct {
	Model         string
	Messages      []openAIMessage
	Prompt        texts
	Suffix        string
	Input         texts
	Stream        *bool
	MaxTokens     *float64 `json:"max_tokens"`
	MaxCompletion *float64 `json:"max_completion_tokens"`
	Tools         json.RawMessage
	Functions     json.RawMessage
}

type openAIMessage struct {
	Role    string
	Content said
}

// said is the text of a message.
type said string

// UnmarshalJSON takes a text, or a list of parts of which some are text.
func (s *said) UnmarshalJSON(b []byte) error {
	if !bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, (*string)(s))
	}
	var parts []struct{ Text string }
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	var all strings.Builder
	for _, p := range parts {
		all.WriteString(p.Text)
	}
	*s = said(all.String())
	return nil
}

// texts is a text or a list of texts. Lists of numbers are tokens already.
type texts struct {
	list   []string
	tokens int
}

// UnmarshalJSON takes any of these. Of what else there may be the backend knows.
func (t *texts) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	t.add(v)
	return nil
}

func (t *texts) add(v any) {
	switch v := v.(type) {
	case string:
		t.list = append(t.list, v)
	case float64:
		t.tokens++
	case []any:
		for _, inner := range v {
			t.add(inner)
		}
	}
}

// read returns all that the model has to read, in the order in which it does.
func (q *openAIRequest) read() (list []string) {
	for _, m := range q.Messages {
		list = append(list, m.Role, string(m.Content))
	}
	list = append(list, q.Prompt.list...)
	list = append(list, q.Input.list...)
	return append(list, q.Suffix)
}

// bytesPerToken is what a token is taken for in text.
const bytesPerToken = 4

// bytes returns how much text the model has to read.
func (q *openAIRequest) bytes() int {
	n := len(q.Suffix) + bytesPerToken*(q.Prompt.tokens+q.Input.tokens)
	for _, m := range q.Messages {
		n += len(m.Content)
	}
	for _, list := range [][]string{q.Prompt.list, q.Input.list} {
		for _, text := range list {
			n += len(text)
		}
	}
	return n
}

// askedForReport is reportFor where only who has our member in the request wants
// the report: there are clients of such dialects that check what they are given.
func askedForReport(own json.RawMessage) report {
	if wants := reportFor(own); wants != inStreams {
		return wants
	}
	return nowhere
}

// openAIJob makes a job of a request of OpenAI's dialect.
func openAIJob(kind job.Kind, path string, body []byte) (j job.Job, wants report, err error) {
	var q openAIRequest
	if err := decode(body, &q); err != nil {
		return job.Job{}, nowhere, err
	}
	body, own, err := takeOwn(body)
	if err != nil {
		return job.Job{}, nowhere, err
	}
	j = job.Job{
		Kind: kind, Model: q.Model,
		Original:    &job.Original{Dialect: job.OpenAI, Path: path, Body: body},
		PromptBytes: q.bytes(),
		MaxTokens:   tokens(cmp.Or(q.MaxCompletion, q.MaxTokens)),
		Completion:  q.Suffix != "",
		Stream:      kind != job.Embed && q.Stream != nil && *q.Stream,
		Tools:       lists(q.Tools) || lists(q.Functions),
	}
	if j.PromptBytes >= job.LeastFingerprint {
		j.Prompt = job.PromptOf(q.read()...)
	}
	if err := annotate(&j, own); err != nil {
		return job.Job{}, nowhere, err
	}
	return j, askedForReport(own), nil
}
