package events

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

// forms are what an answer of chats can become.
var forms = []dialect.Form{dialect.OllamaForm, dialect.MessageForm, dialect.ResponsesForm}

// translating returns what hands on in a form, and what comes of it.
func translating(form dialect.Form) (*Translating, *outcome) {
	p, o := passing(false)
	return &Translating{
		Handing: p.Handing, Sent: time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC),
		Shape:    dialect.Shape{Kind: job.Chat, Form: form, Stream: true, ID: "1", Model: "m"},
		Original: &job.Original{Dialect: map[dialect.Form]job.Dialect{dialect.OllamaForm: job.Ollama, dialect.MessageForm: job.Anthropic, dialect.ResponsesForm: job.OpenAI}[form], Path: "/v1/responses"},
	}, o
}

// translated hands on a response that comes in these pieces.
func translated(a *Translating, warning string, status int, kind string, pieces ...string) error {
	return respond(func(r *http.Response) error { return a.Answer(r, warning) }, status, kind, pieces...)
}

func TestAStreamBecomesOneOfAnotherForm(t *testing.T) {
	for form, want := range map[dialect.Form]struct {
		kind, last string
		pieces     []int
	}{
		dialect.OllamaForm:    {"application/x-ndjson", `"done":true`, []int{1, 1, 0}},
		dialect.MessageForm:   {"text/event-stream; charset=utf-8", "message_stop", []int{1, 1, 0, 0}},
		dialect.ResponsesForm: {"text/event-stream; charset=utf-8", "response.completed", []int{1, 1, 0, 0}},
	} {
		a, o := translating(form)
		if err := translated(a, "beware", 200, "text/event-stream", hel, lo, stop, used, done); err != nil {
			t.Fatal(err)
		}
		var pieces []int
		for _, c := range o.chunks {
			pieces = append(pieces, c.Pieces)
		}
		last := o.last()
		if o.head.ContentType != want.kind || o.head.Length != -1 || o.head.Warning != "beware" || !last.Last || !strings.Contains(string(last.Raw), want.last) {
			t.Errorf("form %d: %+v, %s", form, o.head, last.Raw)
		}
		if last.Usage.PromptTokens != 5 || last.Usage.Tokens != 3 || !slices.Equal(pieces, want.pieces) {
			t.Errorf("form %d: %+v in pieces %v", form, last.Usage, pieces)
		}
	}
}

func TestAStreamThatWasAskedForAndComesUndivided(t *testing.T) {
	const whole = `{"choices":[{"index":0,"message":{"content":"so"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3}}`
	for _, form := range forms {
		a, o := translating(form)
		if err := translated(a, "", 200, "application/json", whole); err != nil || !strings.Contains(o.raw(), "so") || !o.last().Last || o.last().Usage.Tokens != 3 {
			t.Errorf("form %d: %v, %s", form, err, o.raw())
		}
	}
}

func TestRefusalsAreInTheWordsOfWhoAsks(t *testing.T) {
	for form, want := range map[dialect.Form]string{
		dialect.OllamaForm:    `{"error":"no such thing"}`,
		dialect.MessageForm:   `{"error":{"message":"no such thing","type":"invalid_request_error"},"type":"error"}`,
		dialect.ResponsesForm: `{"error":{"message":"no such thing","type":"x"}}`,
	} {
		a, o := translating(form)
		err := translated(a, "", 400, "application/json", `{"error":{"message":"no such thing","type":"x"}}`)
		if err != nil || o.head.Status != 400 || strings.TrimSpace(o.raw()) != want {
			t.Errorf("form %d: %v, %d %s", form, err, o.head.Status, o.raw())
		}
		a, _ = translating(form)
		var e *job.Error
		err = translated(a, "", 503, "application/json", `{"error":{"message":"no such thing","type":"x"}}`)
		if !errors.As(err, &e) || e.Code != job.Busy || e.Answer.Dialect != a.Original.Dialect {
			t.Errorf("form %d: %v", form, err)
		}
	}
}

// Events of Anthropic's Messages and of OpenAI's Responses, as servers send them.
const (
	messageBegins  = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":99}}}\n\n"
	messageSays    = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"\\\"message_stop\\\"\"}}\n\n"
	messageDelta   = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":2,\"output_tokens\":3}}\n\n"
	messageCounts  = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":2,\"output_tokens\":1}}\n\n"
	messageStops   = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	messageFails   = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"boom\"}}\n\n"
	responseBegins = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"object\":\"response\",\"error\":null,\"usage\":null}}\n\n"
	responseSays   = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"\\\"response.completed\\\"\"}\n\n"
	responseStops  = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"object\":\"response\",\"usage\":{\"input_tokens\":7,\"output_tokens\":3}}}\n\n"
	responseFails  = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"x\",\"message\":\"boom\"}}}\n\n"
)

func TestOtherFormsPass(t *testing.T) {
	messages := &job.Original{Dialect: job.Anthropic, Path: "/v1/messages"}
	responses := &job.Original{Dialect: job.OpenAI, Path: "/v1/responses"}
	for _, c := range []struct {
		name  string
		of    *job.Original
		sent  []string
		last  string
		fails bool
	}{
		{"a message", messages, []string{messageBegins, messageSays, messageDelta, messageStops}, messageDelta + messageStops, false},
		{"a message that fails", messages, []string{messageBegins, messageSays, messageFails}, "", true},
		{"a message without an end", messages, []string{messageBegins, messageSays}, "", true},
		{"a message whose reason is its end", messages, []string{messageBegins, messageSays, messageCounts, messageDelta}, messageDelta, false},
		{"a message that only counts", messages, []string{messageBegins, messageSays, messageCounts}, "", true},
		{"a response", responses, []string{responseBegins, responseSays, responseStops}, responseStops, false},
		{"a response that fails", responses, []string{responseBegins, responseSays, responseFails}, "", true},
		{"a response without an end", responses, []string{responseBegins, responseSays}, "", true},
	} {
		p, o := passing(false)
		p.Manner = dialect.MannerOf(c.of)
		err := answer(p, true, 200, "text/event-stream", c.sent...)
		if got := o.raw(); got != strings.Join(c.sent, "") || (err != nil) != c.fails {
			t.Errorf("%s: %v, %s", c.name, err, got)
		}
		if c.fails {
			var e *job.Error
			if told := strings.Contains(o.raw(), "boom"); !errors.As(err, &e) || e.Told != told || told != strings.Contains(e.Detail, "boom") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if last := o.last(); string(last.Raw) != c.last || last.Usage.PromptTokens != 7 || last.Usage.Tokens != 3 {
			t.Errorf("%s: the last is %s with %+v", c.name, last.Raw, last.Usage)
		}
	}
	for whole, of := range map[string]*job.Original{
		`{"type":"message","content":[],"usage":{"input_tokens":7,"output_tokens":3}}`:    messages,
		`{"object":"response","error":null,"usage":{"input_tokens":7,"output_tokens":3}}`: responses,
	} {
		p, o := passing(false)
		p.Manner = dialect.MannerOf(of)
		if err := answer(p, false, 200, "application/json", whole); err != nil || o.raw() != whole || o.last().Usage.PromptTokens != 7 || o.last().Usage.Tokens != 3 {
			t.Errorf("%v, %s, %+v", err, o.raw(), o.last().Usage)
		}
	}
}

// FuzzTranslating cuts a stream anywhere, and holds that there is one end or an
// error, and that where it is cut makes no difference.
func FuzzTranslating(f *testing.F) {
	f.Add([]byte(hel + lo + stop + used + done))
	f.Add([]byte(lo + "data: {\"error\":\"boom\"}\n\n"))
	f.Add([]byte("data: [DONE]"))
	f.Add([]byte(`data: {"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{"}}]}}]}` + "\n\n" + `data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}` + "\n\n" + stop))
	f.Add(bytes.Repeat([]byte("x"), 3*len(endpoint.Buffer{})))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, form := range forms {
			var said []string
			for _, r := range []io.Reader{bytes.NewReader(body), iotest.OneByteReader(bytes.NewReader(body))} {
				a, o := translating(form)
				err := a.streamed(r)
				for i, c := range o.chunks {
					if c.Last != (err == nil && i == len(o.chunks)-1) {
						t.Fatalf("error %v, and chunk %d of %d: %+v", err, i, len(o.chunks), c)
					}
				}
				if err == nil && form != dialect.OllamaForm { // whose lines have the time in them
					said = append(said, o.raw())
				}
			}
			if len(said) == 1 || len(said) == 2 && !sameButTimes(said[0], said[1]) {
				t.Fatalf("cut otherwise it says\n%s, and not\n%s", said[len(said)-1], said[0])
			}
		}
	})
}

// completed is when a response was complete, which is as it looks from here: the
// second may turn between two readings.
var completed = regexp.MustCompile(`"completed_at":\d+`)

// sameButTimes reports whether two streams say the same, but for when they were
// complete.
func sameButTimes(a, b string) bool {
	return completed.ReplaceAllString(a, "") == completed.ReplaceAllString(b, "")
}

func TestTheSecondMayTurnBetweenTwoReadings(t *testing.T) {
	a, o := translating(dialect.ResponsesForm)
	if err := a.streamed(strings.NewReader(hel + lo + stop + used + done)); err != nil {
		t.Fatal(err)
	}
	said := o.raw()
	later := completed.ReplaceAllString(said, `"completed_at":1`)
	if later == said || !sameButTimes(said, later) {
		t.Errorf("%s\nis not\n%s", later, said)
	}
}
