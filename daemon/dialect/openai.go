package dialect

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// openAIAnswer is an event of a stream, or an undivided answer, as servers send
// it.
type openAIAnswer struct {
	Choices []openAIChoice  `json:"choices"`
	Usage   *openAIUsage    `json:"usage"`
	Error   json.RawMessage `json:"error"`
	// Timings are llama.cpp's.
	Timings *timings `json:"timings"`
}

type openAIChoice struct {
	Index   int            `json:"index"`
	Delta   *openAIMessage `json:"delta"`
	Message *openAIMessage `json:"message"`
	Text    string         `json:"text"`
	// Reasoning is ours: completions have no place for it.
	Reasoning string  `json:"reasoning"`
	Reason    *string `json:"finish_reason"`
	// Stop is vLLM's: the text at which the answer ends, or a token's number.
	Stop json.RawMessage `json:"stop_reason"`
	// Logprobs has the form of chats or, with servers that are older in this,
	// of completions.
	Logprobs json.RawMessage `json:"logprobs"`
}

type openAIMessage struct {
	Content string `json:"content"`
	Refusal string `json:"refusal"`
	// What thinking is called differs.
	ReasoningContent string       `json:"reasoning_content"`
	Reasoning        string       `json:"reasoning"`
	ToolCalls        []openAICall `json:"tool_calls"`
}

// openAICall is a call of a tool, or the next part of one.
type openAICall struct {
	Index    *int           `json:"index,omitempty"`
	ID       string         `json:"id,omitempty"`
	Type     string         `json:"type,omitempty"`
	Function openAIFunction `json:"function"`
}

type openAIFunction struct {
	Name string `json:"name,omitempty"`
	// Arguments is JSON in a string. Some servers leave the string out.
	Arguments arguments `json:"arguments"`
}

// arguments is JSON in a string.
type arguments string

// UnmarshalJSON takes a string, or what should have been in it.
func (a *arguments) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	*a = arguments(s)
	return nil
}

type openAIUsage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
	// Details are what some servers add.
	Details *struct {
		Cached int `json:"cached_tokens"`
	} `json:"prompt_tokens_details,omitempty"`
}

type timings struct {
	PromptTokens int     `json:"prompt_n"`
	CachedTokens int     `json:"cache_n"`
	PromptMs     float64 `json:"prompt_ms"`
	Tokens       int     `json:"predicted_n"`
	Ms           float64 `json:"predicted_ms"`
}

// tell adds what timings say to what is known.
func (t *timings) tell(u *job.Usage) {
	u.PromptTokens = cmp.Or(u.PromptTokens, t.PromptTokens+t.CachedTokens)
	u.Cached = cmp.Or(u.Cached, max(0, t.CachedTokens))
	u.Tokens = cmp.Or(u.Tokens, t.Tokens)
	u.Prefill, u.Decode = milliseconds(t.PromptMs), milliseconds(t.Ms)
}

// milliseconds returns a time that a server tells; none if it is absurd.
func milliseconds(ms float64) time.Duration {
	if !(ms >= 0 && ms < 1e10) {
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// usage returns what the answer says it took, or nil.
func (a *openAIAnswer) usage() *job.Usage {
	if a.Usage == nil && a.Timings == nil {
		return nil
	}
	u := new(job.Usage)
	if a.Usage != nil {
		u.PromptTokens, u.Tokens = max(0, a.Usage.PromptTokens), max(0, a.Usage.CompletionTokens)
		if a.Usage.Details != nil {
			u.Cached = max(0, a.Usage.Details.Cached)
		}
	}
	if a.Timings != nil {
		a.Timings.tell(u)
	}
	return u
}

// Sign is what an event says of the stream that it is in, beside what it says in
// it.
type Sign struct {
	// End ends the stream.
	End bool
	// Finished are the answers, by their index, of which nothing is missing if there
	// comes nothing more.
	Finished []int
	// Error is why the server gives up; "" if it does not.
	Error string
	// Told says that there is something of what the answer took, and Alone that
	// there is nothing else.
	Told, Alone bool
	Usage       job.Usage
}

// Look tells what an event of OpenAI's dialect, or an undivided answer, says of
// itself. Few need be parsed for it.
func Look(data []byte) (s Sign) {
	if string(data) == Done {
		return Sign{End: true}
	}
	if has(data, `"finish_reason"`, '"') {
		s.Finished = finishedIn(data)
	}
	s.Told = bytes.Contains(data, []byte(`"usage"`))
	if !has(data, `"usage"`, '{') && !has(data, `"timings"`, '{') && !bytes.Contains(data, []byte(`"error"`)) {
		return s
	}
	var a openAIAnswer
	if json.Unmarshal(data, &a) != nil {
		return s
	}
	if present(a.Error) {
		s.Error = cmp.Or(OpenAIMessage(data), "an error without words")
	}
	if u := a.usage(); u != nil {
		s.Usage = *u
	}
	s.Alone = a.Usage != nil && len(a.Choices) == 0
	return s
}

// finishedIn returns the answers for whose end an event has the reason.
func finishedIn(data []byte) (list []int) {
	var a struct {
		Choices []struct {
			Index  int
			Reason string `json:"finish_reason"`
		}
	}
	if json.Unmarshal(data, &a) != nil {
		return nil
	}
	for _, c := range a.Choices {
		if c.Reason != "" {
			list = append(list, c.Index)
		}
	}
	return list
}

// has reports whether there is a member of that name, quotes and all, whose value
// begins so and is not empty. In a JSON string its quotes would be escaped.
func has(object []byte, name string, begins byte) bool {
	for {
		i := bytes.Index(object, []byte(name))
		if i < 0 {
			return false
		}
		object = object[i+len(name):]
		value := bytes.TrimLeft(object, " \t\r\n:")
		if len(value) > 0 && len(value) < len(object) && value[0] == begins && !bytes.HasPrefix(value, []byte(`""`)) {
			return true
		}
	}
}

// readOpenAI parses an event or an undivided answer.
func readOpenAI(data []byte) (a openAIAnswer, err error) {
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("its answer: %w", err)
	}
	if present(a.Error) {
		return a, failure(OpenAIMessage(data))
	}
	if len(a.Choices) > 1 || len(a.Choices) == 1 && a.Choices[0].Index != 0 {
		return a, failure("it gives several answers, and was asked for one")
	}
	return a, nil
}

// OpenAIMessage returns what an error of a server of OpenAI's API says, or "".
// Not all keep to the form.
func OpenAIMessage(body []byte) string {
	var e struct {
		Error   json.RawMessage
		Message string
		Detail  json.RawMessage
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	for _, member := range []json.RawMessage{e.Error, e.Detail} {
		var inner struct{ Message string }
		var text string
		switch {
		case json.Unmarshal(member, &inner) == nil && inner.Message != "":
			return inner.Message
		case json.Unmarshal(member, &text) == nil && text != "":
			return text
		case present(member):
			return short(member)
		}
	}
	return e.Message
}

// IsOpenAIError reports whether an error has the form of OpenAI's API.
func IsOpenAIError(body []byte) bool {
	var e struct {
		Error struct{ Message *string } `json:"error"`
	}
	return json.Unmarshal(body, &e) == nil && e.Error.Message != nil
}

// OpenAIError returns an error as OpenAI's API has it. What is at fault is named
// by param, if one member is.
func OpenAIError(status int, message, param string) []byte {
	kind := "api_error"
	switch status {
	case 400, 413:
		kind = "invalid_request_error"
	case 401, 403:
		kind = "permission_error"
	case 404:
		kind = "not_found_error"
	case 429:
		kind = "rate_limit_error"
	}
	return OpenAIFailure{Message: message, Type: kind, Param: param}.Body()
}

// OpenAIFailure is what an error says in OpenAI's API. Type and Code are words of
// it, and Param is the member of the request that is at fault, or "".
type OpenAIFailure struct{ Message, Type, Param, Code string }

// Body returns the error as the body of a response.
func (f OpenAIFailure) Body() []byte {
	e := map[string]any{"message": f.Message, "type": f.Type, "param": nil, "code": nil}
	if f.Param != "" {
		e["param"] = f.Param
	}
	if f.Code != "" {
		e["code"] = f.Code
	}
	return job.Line(map[string]any{"error": e})
}

// piece returns what a choice says, but for its calls, which come in parts.
func (c *openAIChoice) piece() (p piece, calls []openAICall, err error) {
	p.text, p.thinking = c.Text, c.Reasoning
	m := c.Delta
	if m == nil {
		m = c.Message
	}
	if m != nil {
		p.text += m.Content + m.Refusal
		p.thinking += cmp.Or(m.ReasoningContent, m.Reasoning)
		calls = m.ToolCalls
	}
	if c.Reason != nil {
		p.reason = ollamaReason(*c.Reason)
		_ = json.Unmarshal(c.Stop, &p.stop) // a number is none
	}
	p.logprobs, err = readLogprobs(c.Logprobs)
	return p, calls, err
}

// ollamaReason returns a finish reason as Ollama says it, who takes a call for
// an end like any other. Reasons that it has not are kept.
func ollamaReason(finish string) string {
	switch finish {
	case "tool_calls", "function_call":
		return "stop"
	default:
		return finish
	}
}

// finishReason returns a reason of Ollama's as OpenAI says it.
func finishReason(reason string, called bool) string {
	if called && reason == "stop" {
		return "tool_calls"
	}
	return reason
}

// completionLogprobs is the form that probabilities have in completions.
type completionLogprobs struct {
	Tokens   []string             `json:"tokens"`
	Logprobs []float64            `json:"token_logprobs"`
	Top      []map[string]float64 `json:"top_logprobs"`
	Offsets  []int                `json:"text_offset"`
}

// readLogprobs reads probabilities in either form.
func readLogprobs(raw json.RawMessage) ([]logprob, error) {
	if !present(raw) {
		return nil, nil
	}
	var chat struct{ Content []logprob }
	if err := json.Unmarshal(raw, &chat); err != nil {
		return nil, fmt.Errorf("its log probabilities: %w", err)
	}
	if chat.Content != nil {
		return chat.Content, nil
	}
	var old completionLogprobs
	if err := json.Unmarshal(raw, &old); err != nil {
		return nil, fmt.Errorf("its log probabilities: %w", err)
	}
	var list []logprob
	for i, token := range old.Tokens {
		l := logprob{Token: token, Bytes: bytesOf(token)}
		if i < len(old.Logprobs) {
			l.Logprob = old.Logprobs[i]
		}
		if i < len(old.Top) {
			l.Top = likeliest(old.Top[i])
		}
		list = append(list, l)
	}
	return list, nil
}

// likeliest lists alternatives with the likeliest first.
func likeliest(top map[string]float64) (list []logprob) {
	for _, token := range slices.Sorted(maps.Keys(top)) {
		list = append(list, logprob{Token: token, Logprob: top[token], Bytes: bytesOf(token)})
	}
	slices.SortStableFunc(list, func(a, b logprob) int { return cmp.Compare(b.Logprob, a.Logprob) })
	return list
}

func bytesOf(token string) (list []int) {
	for _, b := range []byte(token) {
		list = append(list, int(b))
	}
	return list
}

// cut keeps so many alternatives of each token: who asks for none may have to
// be given one.
func cut(list []logprob, top int) []logprob {
	for i := range list {
		list[i].Top = list[i].Top[:min(top, len(list[i].Top))]
	}
	return list
}

// inChat returns probabilities in the form of chats.
func inChat(list []logprob) any {
	if len(list) == 0 {
		return nil
	}
	return map[string]any{"content": list}
}

// inCompletion returns probabilities in the form of completions, of a text that
// begins at offset.
func inCompletion(list []logprob, offset int) any {
	if len(list) == 0 {
		return nil
	}
	var old completionLogprobs
	for _, l := range list {
		top := make(map[string]float64)
		for _, t := range l.Top {
			top[t.Token] = t.Logprob
		}
		old.Tokens, old.Logprobs = append(old.Tokens, l.Token), append(old.Logprobs, l.Logprob)
		old.Top, old.Offsets = append(old.Top, top), append(old.Offsets, offset)
		offset += len(l.Token)
	}
	return old
}

// vector is an embedding: a list of numbers, or their bytes in base64.
type vector []float32

// UnmarshalJSON reads either.
func (v *vector) UnmarshalJSON(b []byte) error {
	if !strings.HasPrefix(string(b), `"`) {
		return json.Unmarshal(b, (*[]float32)(v))
	}
	var raw []byte
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw)%4 != 0 {
		return fmt.Errorf("%d bytes are no list of numbers of 4 bytes each", len(raw))
	}
	*v = make(vector, len(raw)/4)
	for i := range *v {
		(*v)[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		if f := float64((*v)[i]); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("number %d is none", i)
		}
	}
	return nil
}

// base64 returns the numbers' bytes as text.
func (v vector) base64() string {
	raw := make([]byte, 0, 4*len(v))
	for _, f := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// unit returns the vector with a length of one, as Ollama's embeddings have.
func (v vector) unit() vector {
	sum := 0.0
	for _, f := range v {
		sum += float64(f) * float64(f)
	}
	// The length of one that is normalised already differs from 1 by rounding.
	if norm := math.Sqrt(sum); norm > 0 && math.Abs(norm-1) > 1e-5 {
		for i := range v {
			v[i] = float32(float64(v[i]) / norm)
		}
	}
	return v
}
