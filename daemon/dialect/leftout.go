package dialect

import (
	"encoding/json"

	"github.com/joulemux/joulemux/daemon/job"
)

// LeftOut lists what of a request of Anthropic's or OpenAI's dialect an Ollama of
// OllamaVersion takes without a word, and leaves out, though the answer may be
// another one for it. What would have to be kept between requests is refused
// before.
func LeftOut(o *job.Original) (warnings []string) {
	switch {
	case o.Dialect == job.Anthropic:
		return leftOutOfMessages(o.Body)
	case IsResponses(o):
		return leftOutOfResponses(o.Body)
	default:
		return leftOutOfChats(o.Body)
	}
}

// without says that a member has no effect.
func without(member string) string { return member + " has no effect on Ollama's answers" }

// leftOutOfChats is of completions, too. Few requests speak of what it looks for.
func leftOutOfChats(body []byte) (warnings []string) {
	if !mentions(body, `"tool_choice"`, `"parallel_tool_calls"`, `"logit_bias"`, `"n"`, `"best_of"`, `"echo"`) {
		return nil
	}
	q := new(openAIRequest)
	if json.Unmarshal(body, q) != nil {
		return nil
	}
	for _, member := range []struct {
		name string
		is   bool
	}{
		{"tool_choice", present(q.ToolChoice) && string(q.ToolChoice) != `"auto"`},
		{"parallel_tool_calls", q.Parallel != nil && !*q.Parallel},
		{"logit_bias", present(q.Bias)},
		{"n", q.N != nil && *q.N != 1},
		{"best_of", q.BestOf != nil && *q.BestOf > 1},
		{"echo", q.Echo},
	} {
		if member.is {
			warnings = append(warnings, without(member.name))
		}
	}
	return warnings
}

func leftOutOfMessages(body []byte) (warnings []string) {
	var q struct {
		ToolChoice   struct{ Type string } `json:"tool_choice"`
		OutputConfig json.RawMessage       `json:"output_config"`
		OutputFormat json.RawMessage       `json:"output_format"`
		Servers      json.RawMessage       `json:"mcp_servers"`
		Container    json.RawMessage       `json:"container"`
		Thinking     struct{ Type string } `json:"thinking"`
	}
	if json.Unmarshal(body, &q) != nil {
		return nil // which Ollama will say itself
	}
	for _, member := range []struct {
		name string
		is   bool
	}{
		{"tool_choice", q.ToolChoice.Type != "" && q.ToolChoice.Type != "auto"},
		{"output_config", present(q.OutputConfig)},
		{"output_format", present(q.OutputFormat)},
		{"mcp_servers", present(q.Servers)},
		{"container", present(q.Container)},
		{"thinking.type: disabled", q.Thinking.Type == "disabled"},
	} {
		if member.is {
			warnings = append(warnings, without(member.name))
		}
	}
	return warnings
}

func leftOutOfResponses(body []byte) (warnings []string) {
	q := new(responsesRequest)
	if json.Unmarshal(body, q) != nil {
		return nil
	}
	f := q.Text.Format
	for _, member := range []struct {
		name string
		is   bool
	}{
		{"tool_choice", present(q.ToolChoice) && string(q.ToolChoice) != `"auto"`},
		{"parallel_tool_calls", q.ParallelToolCalls != nil && !*q.ParallelToolCalls},
		{"reasoning.effort", q.Reasoning != nil && q.Reasoning.Effort != nil},
		{"text.format", f != nil && f.Type != "text" && f.Type != "json_schema"},
		{"top_logprobs", q.TopLogprobs > 0},
	} {
		if member.is {
			warnings = append(warnings, without(member.name))
		}
	}
	return warnings
}
