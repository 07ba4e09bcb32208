package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/job"
)

// bodyTimeout is how long a client may take to send its request's body.
const bodyTimeout = time.Minute

// readBody reads a body as JSON needs it: in UTF-8, and not too long.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	most := int64(s.settings.Load().MaxBody)
	if r.ContentLength > most { // nothing of it need be read to know
		return nil, s.unreadable(&http.MaxBytesError{Limit: most})
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, job.InvalidField("Content-Encoding", "no body is decompressed here, and this one is %.40q; send it as it is", coding)
	}
	limited := http.MaxBytesReader(w, r.Body, most)
	var b bytes.Buffer
	if n := r.ContentLength; n > 0 && n <= most {
		b.Grow(int(min(n, maxAhead)) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(limited); err != nil {
		return nil, s.unreadable(err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the connection may now be silent
	if body := b.Bytes(); !utf8.Valid(body) {
		return nil, job.Errorf(job.Invalid, "the body is not UTF-8 at byte %d", invalidAt(body))
	}
	return b.Bytes(), nil
}

// unreadable says why a body cannot be read.
func (s *Server) unreadable(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return job.Errorf(job.PromptTooLarge, "the body is longer than %d bytes", large.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return job.Errorf(job.Invalid, "the body has not arrived within %v", s.arriving)
	default:
		return &job.Error{Code: job.Invalid, Detail: "the body cannot be read", Err: err}
	}
}

// maxAhead is what is set aside for a body before any of it is there.
const maxAhead = 1 << 20

// invalidAt returns where text ceases to be UTF-8.
func invalidAt(text []byte) int {
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return len(text)
}

// decode reads a JSON object, and says where it goes wrong.
func decode(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil && !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")):
		return job.Errorf(job.Invalid, "want a JSON object, got null")
	case err == nil:
		return nil
	case len(bytes.TrimSpace(body)) == 0:
		return job.Errorf(job.Invalid, "the body is empty; want a JSON object")
	case errors.As(err, &syntax):
		return job.Errorf(job.Invalid, "the body is no JSON at byte %d: %v", syntax.Offset, syntax)
	case errors.As(err, &kind):
		// Members are named in lower case, in every dialect that is read here.
		return job.InvalidField(strings.ToLower(kind.Field), "want %s, got %s at byte %d", jsonKind(kind.Type), kind.Value, kind.Offset)
	default:
		return &job.Error{Code: job.Invalid, Err: err}
	}
}

// jsonKind names what a value of that type is in JSON.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a JSON object"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// request is what matters to us in a request of Ollama's dialect. All else is
// the backend's to judge.
type request struct {
	Model   string
	Name    string // older name of Model
	Prompt  string
	System  string
	Suffix  string
	Stream  *bool
	Options struct {
		NumPredict *float64 `json:"num_predict"`
		NumCtx     *float64 `json:"num_ctx"`
	}
	Messages  []struct{ Role, Content string }
	Input     input
	Tools     json.RawMessage
	Images    []json.RawMessage
	KeepAlive json.RawMessage `json:"keep_alive"`

	// report is where our own member is wanted in the answer.
	report report
}

// report says where clients want to read what their job took.
type report int

// At the end of a stream, where clients leave alone what they do not know, it
// stands unless the request says "joulemux": false. Any other answer stays as
// the backend wrote it, and headers tell the energy, unless the request has the
// member.
const (
	inStreams report = iota
	everywhere
	nowhere
)

// input is a text or a list of texts, of which the length matters.
type input int

// UnmarshalJSON counts the bytes of text. Lists of numbers are tokens already.
func (n *input) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*n = input(len(one))
		return nil
	}
	var many []any
	if err := json.Unmarshal(b, &many); err != nil {
		return err
	}
	for _, v := range many {
		if text, ok := v.(string); ok {
			*n += input(len(text))
		}
	}
	return nil
}

// bytes returns how much text the model has to read.
func (q *request) bytes() int {
	n := len(q.Prompt) + len(q.System) + len(q.Suffix) + int(q.Input)
	for _, m := range q.Messages {
		n += len(m.Content)
	}
	return n
}

// fingerprint returns that of the text that the model has to read, in the order
// in which it does.
func (q *request) fingerprint() job.Prompt {
	if q.bytes() < job.LeastFingerprint {
		return nil
	}
	texts := []string{q.System}
	for _, m := range q.Messages {
		texts = append(texts, m.Role, m.Content)
	}
	return job.PromptOf(append(texts, q.Prompt, q.Suffix)...)
}

// ollamaJob makes a job of a request of Ollama's dialect.
func ollamaJob(kind job.Kind, path string, body []byte) (j job.Job, q *request, err error) {
	q = new(request)
	if err := decode(body, q); err != nil {
		return job.Job{}, nil, err
	}
	body, own, err := takeOwn(body)
	if err != nil {
		return job.Job{}, nil, err
	}
	q.report = reportFor(own)
	j = job.Job{
		Kind: kind, Model: q.Model,
		Original:    &job.Original{Dialect: job.Ollama, Path: path, Body: body},
		PromptBytes: q.bytes(), Prompt: q.fingerprint(),
		Completion: q.Suffix != "",
		Stream:     kind != job.Embed && (q.Stream == nil || *q.Stream),
		Tools:      lists(q.Tools),
	}
	if j.Model == "" && q.Name != "" {
		// Ollama itself takes the older name for some requests only.
		j.Model, j.Chosen = q.Name, true
	}
	if j.KeepAsked, err = job.ParseKeepAlive(q.KeepAlive); err != nil {
		return job.Job{}, nil, job.InvalidField("keep_alive", "%v", err)
	}
	j.MaxTokens, j.ContextLength = tokens(q.Options.NumPredict), tokens(q.Options.NumCtx)
	if err := annotate(&j, own); err != nil {
		return job.Job{}, nil, err
	}
	return j, q, nil
}

// annotate takes in what our member says of the job.
func annotate(j *job.Job, own json.RawMessage) error {
	options, err := ownOptions(own)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := j.Annotate(key, options[key]); err != nil {
			return within(job.OwnMember, err)
		}
	}
	return nil
}

// lists reports whether a member is there and has something in it.
func lists(raw json.RawMessage) bool {
	return len(raw) > 0 && string(raw) != "null" && string(raw) != "[]"
}

// reportFor returns where a request with that member of ours, or none, wants
// the report.
func reportFor(own json.RawMessage) report {
	switch string(own) {
	case "":
		return inStreams
	case "false":
		return nowhere
	default:
		return everywhere
	}
}

// ownOptions returns what our member says of the job.
func ownOptions(own json.RawMessage) (options map[string]any, err error) {
	if len(own) == 0 || string(own) == "true" || string(own) == "false" {
		return nil, nil
	}
	if json.Unmarshal(own, &options) != nil {
		return nil, job.InvalidField(job.OwnMember, "want a JSON object, true or false")
	}
	return options, nil
}

// takeOwn takes our own member out of a body. Few bodies speak of it at all.
func takeOwn(body []byte) (rest []byte, own json.RawMessage, err error) {
	if !bytes.Contains(body, []byte(job.OwnMember)) {
		return body, nil, nil
	}
	rest, own, err = job.TakeOwn(body)
	if err != nil {
		return nil, nil, &job.Error{Code: job.Invalid, Err: err}
	}
	return rest, own, nil
}

// tokens returns a number of tokens, or zero for none that bounds anything.
func tokens(n *float64) int {
	if n == nil || *n <= 0 {
		return 0
	}
	return int(min(*n, maxTokens))
}

// maxTokens is what int32 holds, which is what the wires have for counts.
const maxTokens = 1<<31 - 1

// within says in which member the field at fault is.
func within(member string, err error) error {
	var e *job.Error
	if errors.As(err, &e) {
		inner := *e
		inner.Field = member + "." + e.Field
		return &inner
	}
	return fmt.Errorf("%s: %w", member, err)
}

// decodeStrictly is decode for our own API, where a member that we do not know
// is a mistake.
func decodeStrictly(body []byte, into any) error {
	if err := decode(body, into); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return job.Errorf(job.Invalid, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
