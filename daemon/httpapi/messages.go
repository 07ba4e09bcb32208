package httpapi

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// countTokens is where Anthropic's clients ask how long a prompt is. Only some
// servers could tell, and not the one that the job will run on.
const countTokens = "/v1/messages/count_tokens"

// messagesRequest is what matters to us in a request of Anthropic's Messages. All
// else is the backend's to judge.
type messagesRequest struct {
	Model     string
	System    uttered
	Messages  []turn
	Stream    bool
	MaxTokens *float64 `json:"max_tokens"`
	Tools     json.RawMessage
}

// responsesRequest is what matters to us in a request of OpenAI's Responses.
type responsesRequest struct {
	Model        string
	Instructions string
	Input        conversation
	Stream       bool
	MaxTokens    *float64 `json:"max_output_tokens"`
	Tools        json.RawMessage
}

// turn is a turn of a conversation, or an item of one.
type turn struct {
	Role      string
	Content   uttered
	Arguments string
	Output    uttered
}

// conversation is a list of turns. A text is one of the user's.
type conversation []turn

// UnmarshalJSON takes either.
func (c *conversation) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, (*[]turn)(c))
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	if *c = nil; text != "" {
		*c = conversation{{Role: "user", Content: uttered(text)}}
	}
	return nil
}

// uttered is the text of a turn, results of tools and all.
type uttered string

// UnmarshalJSON takes a text, or a list of blocks of which some have one.
func (u *uttered) UnmarshalJSON(b []byte) error {
	if !bytes.HasPrefix(b, []byte("[")) {
		return json.Unmarshal(b, (*string)(u))
	}
	var blocks []struct {
		Text, Thinking string
		Content        inner
		Input          json.RawMessage
	}
	if err := json.Unmarshal(b, &blocks); err != nil {
		return err
	}
	var all strings.Builder
	for _, block := range blocks {
		all.WriteString(block.Text + block.Thinking + string(block.Content))
		all.Write(block.Input)
	}
	*u = uttered(all.String())
	return nil
}

// inner is the text of what a block holds: of the result of a tool, say. Of what
// else it may hold the backend knows, and of what that holds in turn: each level
// would be read once more for every one above it.
type inner string

// UnmarshalJSON takes what it finds.
func (i *inner) UnmarshalJSON(b []byte) error {
	var text said
	_ = json.Unmarshal(b, &text)
	*i = inner(text)
	return nil
}

// reads notes what the model has to read.
func reads(j *job.Job, system string, turns []turn) {
	var list []string
	if system != "" {
		list, j.PromptBytes = append(list, "system", system), len(system)
	}
	for _, t := range turns {
		text := string(t.Content) + t.Arguments + string(t.Output)
		list, j.PromptBytes = append(list, t.Role, text), j.PromptBytes+len(text)
	}
	if j.PromptBytes >= job.LeastFingerprint {
		j.Prompt = job.PromptOf(list...)
	}
}

// messagesJob makes a job of a request of Anthropic's Messages.
func messagesJob(path string, body []byte) (j job.Job, wants report, err error) {
	var q messagesRequest
	if err := decode(body, &q); err != nil {
		return job.Job{}, nowhere, err
	}
	if err := dialect.CheckTools(q.Tools); err != nil {
		return job.Job{}, nowhere, err
	}
	body, own, err := takeOwn(body)
	switch {
	case err != nil:
		return job.Job{}, nowhere, err
	case tokens(q.MaxTokens) == 0:
		return job.Job{}, nowhere, job.InvalidField("max_tokens", "it is needed, and has to be more than 0")
	case len(q.Messages) == 0:
		return job.Job{}, nowhere, job.InvalidField("messages", "there are none")
	}
	j = job.Job{
		Kind: job.Chat, Model: q.Model, Stream: q.Stream, MaxTokens: tokens(q.MaxTokens), Tools: lists(q.Tools),
		Original: &job.Original{Dialect: job.Anthropic, Path: path, Body: body},
	}
	reads(&j, string(q.System), q.Messages)
	return j, askedForReport(own), annotate(&j, own)
}

// responsesJob makes a job of a request of OpenAI's Responses.
func responsesJob(path string, body []byte) (j job.Job, wants report, err error) {
	var q responsesRequest
	if err := decode(body, &q); err != nil {
		return job.Job{}, nowhere, err
	}
	if err := dialect.CheckResponses(body); err != nil {
		return job.Job{}, nowhere, err
	}
	body, own, err := takeOwn(body)
	switch {
	case err != nil:
		return job.Job{}, nowhere, err
	case len(q.Input) == 0:
		return job.Job{}, nowhere, job.InvalidField("input", "it is needed")
	}
	j = job.Job{
		Kind: job.Chat, Model: q.Model, Stream: q.Stream, MaxTokens: tokens(q.MaxTokens), Tools: lists(q.Tools),
		Original: &job.Original{Dialect: job.OpenAI, Path: path, Body: body},
	}
	reads(&j, q.Instructions, q.Input)
	return j, askedForReport(own), annotate(&j, own)
}
