package events

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/dialect"
	"github.com/joulemux/joulemux/daemon/job"
)

const (
	hel     = `data: {"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}` + "\n\n"
	lo      = `data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":""}]}` + "\n\n"
	stop    = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	other   = `data: {"choices":[{"index":1,"delta":{},"finish_reason" : "length"}]}` + "\n\n"
	used    = `data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}` + "\n\n"
	counted = `data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}` + "\n\n"
	nothing = `data: {"choices":[{"text":"a"}],"usage":null, "x":1}` + "\n\n"
	done    = "data: [DONE]\n\n"
)

// outcome is everything that came of a response.
type outcome struct {
	head   job.Head
	begun  bool
	chunks []job.Chunk
}

func (o *outcome) raw() string {
	var b strings.Builder
	for _, c := range o.chunks {
		b.Write(c.Raw)
	}
	return b.String()
}

func (o *outcome) last() job.Chunk {
	if len(o.chunks) == 0 {
		return job.Chunk{}
	}
	return o.chunks[len(o.chunks)-1]
}

// passing returns what hands on, and what comes of it.
func passing(hide bool) (*Passing, *outcome) {
	o := new(outcome)
	return &Passing{
		Manner: dialect.MannerOf(&job.Original{Dialect: job.OpenAI}), Hide: hide, Sent: time.Now(),
		Handing: &endpoint.Handing{
			Start: func(h job.Head) error { o.head, o.begun = h, true; return nil },
			Emit: func(c job.Chunk) error {
				c.Raw = bytes.Clone(c.Raw)
				o.chunks = append(o.chunks, c)
				return nil
			},
		},
	}, o
}

// answer hands on a response that comes in these pieces.
func answer(p *Passing, stream bool, status int, kind string, pieces ...string) error {
	return respond(func(r *http.Response) error { return p.Answer(r, stream) }, status, kind, pieces...)
}

// respond gives a response that comes in these pieces.
func respond(to func(*http.Response) error, status int, kind string, pieces ...string) error {
	readers := make([]io.Reader, len(pieces))
	for i, p := range pieces {
		readers[i] = strings.NewReader(p)
	}
	resp := &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: http.Header{"Content-Type": {kind}},
		Body: io.NopCloser(io.MultiReader(readers...)), ContentLength: -1,
	}
	defer resp.Body.Close()
	return to(resp)
}

func TestAStreamPassesWithItsEndAlone(t *testing.T) {
	for _, c := range []struct {
		name   string
		hide   bool
		sent   []string
		want   []string
		pieces []int
	}{
		{"the end is what tells the use", false, []string{hel, lo, stop, used, done}, []string{hel, lo, stop, used + done}, []int{1, 1, 1, 0}},
		{"or the reason, where that is hidden", true, []string{hel, lo, stop, used, done}, []string{hel, lo, stop + done}, []int{1, 1, 0}},
		{"what comes together goes together", true, []string{hel + lo + stop + used + done}, []string{hel + lo, stop + done}, []int{2, 0}},
		{"events are never cut", false, []string{hel + lo[:9], lo[9:] + stop, done}, []string{hel, lo, stop + done}, []int{1, 1, 0}},
		{"several answers have a reason each", true, []string{hel, stop, other, used, done}, []string{hel, stop, other + done}, []int{1, 1, 0}},
		{"a reason may come before other things", false, []string{stop, hel, done}, []string{stop + hel, done}, []int{2, 0}},
		{
			"what was not asked for is hidden everywhere", true,
			[]string{counted, nothing, stop, used, done},
			[]string{`data: {"choices":[{"text":"a"}]}` + "\n\n", `data: {"choices":[{"text":"a"}], "x":1}` + "\n\n", stop + done},
			[]int{1, 1, 0},
		},
		{"and shown to who asked", false, []string{counted, nothing, stop, used, done}, []string{counted, nothing, stop, used + done}, []int{1, 1, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := passing(c.hide)
			err := answer(p, true, 200, "text/event-stream", c.sent...)
			var got []string
			var pieces []int
			for _, chunk := range o.chunks {
				got, pieces = append(got, string(chunk.Raw)), append(pieces, chunk.Pieces)
			}
			if err != nil || !reflect.DeepEqual(got, c.want) || !reflect.DeepEqual(pieces, c.pieces) || !o.last().Last {
				t.Errorf("%v\n got %q %v\nwant %q", err, got, pieces, c.want)
			}
			if u := o.last().Usage; strings.Contains(strings.Join(c.sent, ""), used) && (u.PromptTokens != 5 || u.Tokens != 3 || u.Decode <= 0) {
				t.Errorf("it took %+v", u)
			}
		})
	}
}

func TestAnUndividedAnswerPassesEveryByte(t *testing.T) {
	body := []string{`{"choices": [{"message":{"content":"`, strings.Repeat("x", 3*len(endpoint.Buffer{})), `"}}],"usage":{"completion_tokens":3}}` + "\n"}
	p, o := passing(true)
	if err := answer(p, false, 200, "application/json", body...); err != nil || o.raw() != strings.Join(body, "") || o.last().Usage.Tokens != 3 {
		t.Errorf("%v: %d bytes, %+v", err, len(o.raw()), o.last().Usage)
	}
}

func TestAServerThatDoesNotStreamIsNotBroken(t *testing.T) {
	p, o := passing(true)
	if err := answer(p, true, 200, "application/json; charset=utf-8", `{"choices":[]}`); !errors.Is(err, job.Unsupported) || o.begun {
		t.Errorf("%v: %+v", err, o)
	}
}

func TestAStreamThatBreaksEndsWhereItDid(t *testing.T) {
	const boom = `data: {"error":{"message":"boom"}}` + "\n\n"
	for _, c := range []struct {
		name        string
		kind        string
		sent        string
		passed      string
		begun, told bool
	}{
		{"after a token", "text/event-stream", hel + lo[:9], hel, true, false},
		{"with the server's own error", "text/event-stream", hel + boom + lo, hel + boom, true, true},
		{"with an error before any token", "text/event-stream; charset=utf-8", boom, "", false, false},
		{"before it begins", "text/event-stream", "", "", false, false},
		{"by being none", "text/html", `<html>`, "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := passing(true)
			err := answer(p, true, 200, c.kind, c.sent)
			var e *job.Error
			if !errors.As(err, &e) || e.Code != job.BackendFailed || e.Told != c.told || o.begun != c.begun || o.raw() != c.passed || o.last().Last {
				t.Errorf("%v: %+v %q", err, o, o.raw())
			}
		})
	}
}

func TestAStreamWithoutALastEventIsWholeOnceEveryAnswerIs(t *testing.T) {
	const twice = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}` + "\n\n"
	for _, c := range []struct {
		name, body string
		sent       string
		whole      bool
	}{
		{"one was asked for", `{"messages":[]}`, hel + stop, true},
		{"one, in so many words", `{"n":1}`, hel + stop, true},
		{"one of two has ended", `{"n":2}`, hel + stop, false},
		{"the same one, twice", `{"n":2}`, hel + stop + twice, false},
		{"both have", `{"n":2}`, hel + stop + other, true},
		{"both, in one event", `{"n":2}`, hel + `data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}` + "\n\n", true},
		{"the other without a blank line behind it", `{"n":2}`, hel + stop + strings.TrimSpace(other), true},
		{"the other with half of its event", `{"n":2}`, hel + stop + other[:len(other)-5], false},
		{"the server says that this is all", `{"n":2}`, hel + stop + done, true},
		{"one of two prompts", `{"prompt":["a","b"]}`, hel + stop, false},
		{"one of two for one of two", `{"prompt":["a","b"],"n":2}`, hel + stop + other, false},
		{"prompts in tokens", `{"prompt":[[1,2],[3]]}`, hel + stop, false},
		{"one prompt in tokens", `{"prompt":[1,2,3]}`, hel + stop, true},
		{"a number that is none", `{"n":null}`, hel + stop, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, o := passing(false)
			p.Manner = dialect.MannerOf(&job.Original{Dialect: job.OpenAI, Path: "/v1/completions", Body: []byte(c.body)})
			err := answer(p, true, 200, "text/event-stream", c.sent)
			var e *job.Error
			if errors.As(err, &e) == c.whole || o.last().Last != c.whole || e != nil && (e.Code != job.BackendFailed || e.Told) {
				t.Errorf("%v after %q", err, o.raw())
			}
		})
	}
}

func TestErrorsAreInTheWordsOfTheDialect(t *testing.T) {
	const own = `{"error": {"message":"so it is","type":"x"}}`
	for _, c := range []struct {
		status     int
		body, want string
		code       job.Code
	}{
		{500, own, own, job.BackendFailed},
		{503, own, own, job.Busy},
		{400, own, own, job.Invalid},
		{404, `{"error":"so it is"}`, `"message":"so it is"`, job.ModelNotFound},
		{400, `{"error":"so it is"}`, `"type":"invalid_request_error"`, job.Invalid},
		{502, "<html>so it is", `"message":"Bad Gateway"`, job.BackendFailed},
	} {
		p, o := passing(false)
		err := answer(p, true, c.status, "text/plain", c.body)
		status, body := o.head.Status, o.raw()
		if c.code != job.Invalid {
			var e *job.Error
			if !errors.As(err, &e) || e.Code != c.code || o.begun || e.Answer.Dialect != job.OpenAI {
				t.Errorf("%d %s: %v", c.status, c.body, err)
				continue
			}
			status, body = e.Answer.Status, string(e.Answer.Body)
		} else if err != nil {
			t.Error(err)
		}
		if status != c.status || !strings.Contains(body, c.want) || !dialect.IsOpenAIError([]byte(body)) {
			t.Errorf("%d %s became %d %s", c.status, c.body, status, body)
		}
	}
}

// FuzzStream cuts a stream anywhere, and holds that there is one end or an error,
// and that what passes are the server's bytes in their order.
func FuzzStream(f *testing.F) {
	f.Add([]byte(hel+lo+stop+used+done), true)
	f.Add([]byte(hel+"data: {\"error\":\"boom\"}\n\n"), false)
	f.Add([]byte("data: [DONE]"), false)
	f.Add([]byte(counted+nothing+stop), true)
	f.Add(bytes.Repeat([]byte("x"), 3*len(endpoint.Buffer{})), false)
	f.Fuzz(func(t *testing.T, body []byte, slow bool) {
		for _, hide := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(body)
			if slow {
				r = iotest.OneByteReader(r)
			}
			p, o := passing(hide)
			err := p.stream(r)
			for i, c := range o.chunks {
				if c.Last != (err == nil && i == len(o.chunks)-1) {
					t.Fatalf("error %v, and chunk %d of %d: %+v", err, i, len(o.chunks), c)
				}
			}
			if err == nil && len(o.chunks) == 0 || !hide && !strings.HasPrefix(string(body), o.raw()) {
				t.Fatalf("error %v, passed %q", err, o.raw())
			}
		}
	})
}
