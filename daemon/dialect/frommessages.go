package dialect

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
)

// messagesRequest is a request of Anthropic's Messages
// (https://platform.claude.com/docs/en/api/messages).
type messagesRequest struct {
	Model         string            `json:"model"`
	MaxTokens     *int              `json:"max_tokens"`
	Messages      []turn            `json:"messages"`
	System        json.RawMessage   `json:"system"`
	Stream        bool              `json:"stream"`
	Temperature   json.RawMessage   `json:"temperature"`
	TopP          json.RawMessage   `json:"top_p"`
	TopK          json.RawMessage   `json:"top_k"`
	StopSequences []string          `json:"stop_sequences"`
	Tools         []json.RawMessage `json:"tools"`
	ToolChoice    *toolChoice       `json:"tool_choice"`
	Thinking      *struct {
		Type   string `json:"type"`
		Budget int    `json:"budget_tokens"`
	} `json:"thinking"`
	OutputFormat *outputFormat `json:"output_format"`
	OutputConfig *struct {
		Effort string        `json:"effort"`
		Format *outputFormat `json:"format"`
	} `json:"output_config"`
	Servers   json.RawMessage `json:"mcp_servers"`
	Container json.RawMessage `json:"container"`
}

const messagesMembers = "model max_tokens messages system stream temperature top_p top_k stop_sequences tools tool_choice thinking " +
	"output_format output_config mcp_servers container"

// turn is a turn of a conversation.
type turn struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type toolChoice struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	OneByOne bool   `json:"disable_parallel_tool_use"`
}

type outputFormat struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

// contentBlock is a part of a turn, of any type.
type contentBlock struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	Thinking string          `json:"thinking"`
	Source   source          `json:"source"`
	ID       string          `json:"id"`
	Name     string          `json:"name"`
	Input    json.RawMessage `json:"input"`
	Call     string          `json:"tool_use_id"`
	Content  json.RawMessage `json:"content"`
	Failed   bool            `json:"is_error"`
	Cache    json.RawMessage `json:"cache_control"`
}

// blockMembers are the members of a block. Signatures are of use to who has signed
// alone.
const blockMembers = "type text thinking source id name input tool_use_id content is_error cache_control signature data"

type source struct {
	Type  string `json:"type"`
	Media string `json:"media_type"`
	Data  string `json:"data"`
}

// fromMessages is a translation under way.
type fromMessages struct {
	asking
	ask *messagesRequest
	// open are the calls whose results are yet to come.
	open []string
	list []map[string]any
}

// FromMessages translates a request of Anthropic's Messages into a chat of
// OpenAI's. The server calls its model by model, and the answer is to be called
// by id.
func FromMessages(body []byte, model, id string, s Server) (Request, error) {
	q := new(messagesRequest)
	if err := parse(body, q); err != nil {
		return Request{}, err
	}
	t := &fromMessages{asking: asking{server: s, body: map[string]any{"model": model}}, ask: q}
	for _, name := range strange(body, messagesMembers) {
		t.warn("%s has no name there", name)
	}
	for _, step := range []func() error{t.limits, t.messages, t.tools, t.choice, t.thinks, t.looks} {
		if err := step(); err != nil {
			return Request{}, err
		}
	}
	t.body["messages"] = t.list
	if q.Stream {
		t.stream()
	}
	return Request{
		Path: "/chat/completions", Body: encode(t.body), Warnings: t.warnings,
		Shape: Shape{Kind: job.Chat, Form: MessageForm, ID: id, Model: q.Model, Stream: q.Stream},
	}, nil
}

// limits translates how tokens are chosen, and how many.
func (t *fromMessages) limits() error {
	q := t.ask
	switch {
	case q.MaxTokens == nil:
		return job.InvalidField("max_tokens", "it is needed")
	case *q.MaxTokens <= 0:
		return job.InvalidField("max_tokens", "want more than 0, got %d", *q.MaxTokens)
	case present(q.Servers):
		return unsupported("mcp_servers", "no tools are run there")
	case present(q.Container):
		return unsupported("container", "no tools are run there")
	}
	t.body["max_tokens"] = *q.MaxTokens
	for name, value := range map[string]json.RawMessage{"temperature": q.Temperature, "top_p": q.TopP} {
		if present(value) {
			t.body[name] = value
		}
	}
	if present(q.TopK) {
		if theirs, ok := t.server.Options["top_k"]; ok {
			t.body[theirs] = q.TopK
		} else {
			t.warn("top_k has no name there")
		}
	}
	if len(q.StopSequences) > 0 {
		t.body["stop"] = q.StopSequences
		if !t.server.Stops {
			t.warn("stop_sequences: that one has ended an answer is not told there")
		}
	}
	return nil
}

// messages translates a conversation.
func (t *fromMessages) messages() error {
	q := t.ask
	if len(q.Messages) == 0 {
		return job.InvalidField("messages", "there are none")
	}
	if present(q.System) {
		text, err := t.texts("system", q.System)
		if err != nil {
			return err
		}
		t.list = append(t.list, map[string]any{"role": "system", "content": text})
	}
	for i, m := range q.Messages {
		at := fmt.Sprintf("messages[%d]", i)
		blocks, err := t.blocks(at+".content", m.Content)
		if err != nil {
			return err
		}
		switch m.Role {
		case "user":
			err = t.user(at, blocks)
		case "assistant":
			if i == len(q.Messages)-1 {
				return unsupported(at, "an answer that the client begins is not gone on with there")
			}
			err = t.assistant(at, blocks)
		default:
			err = job.InvalidField(at+".role", "%q is none of user, assistant", m.Role)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blocks reads what a turn says: a text, or a list of blocks.
func (t *fromMessages) blocks(at string, content json.RawMessage) (list []contentBlock, err error) {
	var text string
	switch {
	case len(content) == 0 || string(content) == "null":
		return nil, job.InvalidField(at, "it is needed")
	case json.Unmarshal(content, &text) == nil:
		return []contentBlock{{Type: "text", Text: text}}, nil
	case json.Unmarshal(content, &list) != nil:
		return nil, job.InvalidField(at, "want a text or a list of blocks")
	}
	if slices.ContainsFunc(list, func(b contentBlock) bool { return present(b.Cache) }) {
		t.warn("cache_control: what is kept of a prompt is the server's own choice")
	}
	var loose []json.RawMessage
	_ = json.Unmarshal(content, &loose) // as it was just now
	for _, block := range loose {
		for _, name := range strange(block, blockMembers) {
			t.warn("%s of a block has no place there", name)
		}
	}
	return list, nil
}

// texts returns what is to be text alone.
func (t *fromMessages) texts(at string, content json.RawMessage) (string, error) {
	list, err := t.blocks(at, content)
	if err != nil {
		return "", err
	}
	var said []string
	for n, b := range list {
		if b.Type != "text" {
			return "", unsupported(fmt.Sprintf("%s[%d]", at, n), "there is only text there, and here is %q", b.Type)
		}
		said = append(said, b.Text)
	}
	return strings.Join(said, "\n"), nil
}

// user translates a turn of the user's: results of calls, which are messages of
// their own, and what he says.
func (t *fromMessages) user(at string, blocks []contentBlock) error {
	var parts []map[string]any
	for n, b := range blocks {
		field := fmt.Sprintf("%s.content[%d]", at, n)
		switch b.Type {
		case "text":
			parts = append(parts, map[string]any{"type": "text", "text": b.Text})
		case "image", "document":
			part, err := b.part(field)
			if err != nil {
				return err
			}
			parts = append(parts, part)
		case "tool_result":
			if err := t.result(field, b); err != nil {
				return err
			}
		default:
			return unsupported(field, "blocks of the type %q are not understood there", b.Type)
		}
	}
	if len(parts) > 0 {
		t.list = append(t.list, map[string]any{"role": "user", "content": plainly(parts)})
	}
	return nil
}

// plainly returns parts of a message as one text, if that is what they are: not
// every server takes lists of them.
func plainly(parts []map[string]any) any {
	var said []string
	for _, p := range parts {
		if p["type"] != "text" {
			return parts
		}
		said = append(said, p["text"].(string))
	}
	return strings.Join(said, "\n")
}

// part returns an image, or a document that is text, as a part of a message.
func (b *contentBlock) part(field string) (map[string]any, error) {
	switch {
	case b.Type == "document" && b.Source.Type == "text":
		return map[string]any{"type": "text", "text": b.Source.Data}, nil
	case b.Type == "document":
		return nil, unsupported(field, "documents are not read there, only text")
	case b.Source.Type != "base64":
		return nil, unsupported(field, "an image has to be sent, in base64; it is not fetched")
	}
	if _, err := base64.StdEncoding.DecodeString(b.Source.Data); err != nil || !strings.HasPrefix(b.Source.Media, "image/") {
		return nil, job.InvalidField(field+".source", "want an image in base64, and its media_type")
	}
	url := "data:" + b.Source.Media + ";base64," + b.Source.Data
	return map[string]any{"type": "image_url", "image_url": map[string]string{"url": url}}, nil
}

// result translates the result of a call.
func (t *fromMessages) result(field string, b contentBlock) error {
	at := slices.Index(t.open, b.Call)
	if at < 0 {
		return job.InvalidField(field+".tool_use_id", "the result is of no call before it")
	}
	t.open = slices.Delete(t.open, at, at+1)
	text := ""
	if present(b.Content) {
		var err error
		if text, err = t.texts(field+".content", b.Content); err != nil {
			return err
		}
	}
	if b.Failed {
		t.warn("%s.is_error has no place there", field)
	}
	t.list = append(t.list, map[string]any{"role": "tool", "tool_call_id": b.Call, "content": text})
	return nil
}

// assistant translates a turn of the model's.
func (t *fromMessages) assistant(at string, blocks []contentBlock) error {
	var said, thoughts []string
	var made []openAICall
	for n, b := range blocks {
		field := fmt.Sprintf("%s.content[%d]", at, n)
		switch b.Type {
		case "text":
			said = append(said, b.Text)
		case "thinking":
			thoughts = append(thoughts, b.Thinking)
		case "redacted_thinking":
			t.warn("%s: what is encrypted nobody can read there", field)
		case "tool_use":
			if b.ID == "" || b.Name == "" || !strings.HasPrefix(string(b.Input), "{") {
				return job.InvalidField(field, "want an id, a name and an input that is a JSON object")
			}
			made = append(made, openAICall{ID: b.ID, Type: "function", Function: openAIFunction{b.Name, arguments(b.Input)}})
			t.open = append(t.open, b.ID)
		default:
			return unsupported(field, "blocks of the type %q are not understood there", b.Type)
		}
	}
	message := map[string]any{"role": "assistant", "content": strings.Join(said, "\n")}
	if len(made) > 0 {
		message["tool_calls"] = made
	}
	t.think(at, message, strings.Join(thoughts, "\n"))
	t.list = append(t.list, message)
	return nil
}

// CheckTools returns why a request of Anthropic's Messages with such tools is
// answered by no server here. Ollama itself searches the web for a model, by way
// of ollama.com, and what is asked would leave this machine whatever its user
// allows. The error's code is Unsupported or Invalid.
func CheckTools(tools json.RawMessage) error {
	if !present(tools) {
		return nil
	}
	var list []struct{ Type string }
	if err := parse(tools, &list); err != nil {
		return err
	}
	for i, tool := range list {
		if strings.HasPrefix(tool.Type, "web_") {
			return unsupported(fmt.Sprintf("tools[%d]", i), "nothing is looked up in the web for a model; describe a tool of your own, and run it when it is called")
		}
	}
	return nil
}

// tools translates which tools there are.
func (t *fromMessages) tools() error {
	var list []map[string]any
	for i, raw := range t.ask.Tools {
		at := fmt.Sprintf("tools[%d]", i)
		for _, name := range strange(raw, "type name description input_schema strict cache_control") {
			t.warn("%s of a tool has no name there", name)
		}
		var tool struct {
			Type, Name, Description string
			Schema                  json.RawMessage `json:"input_schema"`
			Strict                  *bool
			Cache                   json.RawMessage `json:"cache_control"`
		}
		if err := json.Unmarshal(raw, &tool); err != nil {
			return job.InvalidField(at, "%v", err)
		}
		switch {
		case tool.Type != "" && tool.Type != "custom":
			return unsupported(at, "there is no tool of the type %q there, only those that the client describes", tool.Type)
		case tool.Name == "" || !strings.HasPrefix(string(tool.Schema), "{"):
			return job.InvalidField(at, "want a name and an input_schema")
		case present(tool.Cache):
			t.warn("cache_control: what is kept of a prompt is the server's own choice")
		}
		list = append(list, function(tool.Name, tool.Description, tool.Schema, tool.Strict))
	}
	if len(list) > 0 {
		t.body["tools"] = list
	}
	return nil
}

// function returns a tool as chats have it.
func function(name, description string, parameters json.RawMessage, strict *bool) map[string]any {
	f := map[string]any{"name": name}
	if description != "" {
		f["description"] = description
	}
	if present(parameters) || string(parameters) == "{}" {
		f["parameters"] = parameters
	}
	if strict != nil {
		f["strict"] = *strict
	}
	return map[string]any{"type": "function", "function": f}
}

// choice translates whether a tool is to be called, and which.
func (t *fromMessages) choice() error {
	c := t.ask.ToolChoice
	if c == nil {
		return nil
	}
	switch c.Type {
	case "auto", "none":
		t.body["tool_choice"] = c.Type
	case "any":
		t.body["tool_choice"] = "required"
	case "tool":
		t.body["tool_choice"] = theTool(c.Name)
	default:
		return job.InvalidField("tool_choice.type", "%q is none of auto, any, tool, none", c.Type)
	}
	if c.OneByOne {
		t.body["parallel_tool_calls"] = false
	}
	return nil
}

// theTool returns the choice of one tool as chats have it.
func theTool(name string) any {
	return map[string]any{"type": "function", "function": map[string]string{"name": name}}
}

// thinks translates whether, and how hard, the model is to think before it
// answers.
func (t *fromMessages) thinks() error {
	level := ""
	if c := t.ask.OutputConfig; c != nil {
		level = c.Effort
	}
	think := t.ask.Thinking
	if think != nil {
		switch think.Type {
		case "disabled":
			level = "none"
		case "enabled":
			if level == "" {
				level = "medium"
			}
			t.warn("thinking.budget_tokens: how much is thought is the model's own choice there")
		case "adaptive":
		default:
			return job.InvalidField("thinking.type", "%q is none of enabled, disabled, adaptive", think.Type)
		}
	}
	switch {
	case level == "":
	case t.server.Templated && think != nil && think.Type == "enabled" && (t.ask.OutputConfig == nil || t.ask.OutputConfig.Effort == ""):
		t.body["chat_template_kwargs"] = map[string]any{"enable_thinking": true}
	case slices.Contains([]string{"none", "low", "medium", "high"}, level):
		t.effort(level)
	default:
		t.effort("high")
		t.warn(`output_config.effort: %q is "high" there`, level)
	}
	return nil
}

// looks translates what the answer has to look like.
func (t *fromMessages) looks() error {
	field, f := "output_format", t.ask.OutputFormat
	if c := t.ask.OutputConfig; c != nil && c.Format != nil {
		field, f = "output_config.format", c.Format
	}
	switch {
	case f == nil:
		return nil
	case f.Type != "json_schema" || !present(f.Schema):
		return unsupported(field, "there is no form %q there", f.Type)
	}
	t.form("answer", true, f.Schema)
	return nil
}
