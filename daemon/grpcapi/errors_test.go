package grpcapi_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/joulemux/joulemux/daemon/grpcapi"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

func TestEveryFailureHasItsCode(t *testing.T) {
	for code, want := range map[job.Code]connect.Code{
		job.Invalid: connect.CodeInvalidArgument, job.PromptTooLarge: connect.CodeInvalidArgument, job.Unsupported: connect.CodeInvalidArgument,
		job.ModelNotFound: connect.CodeNotFound, job.BackendNotFound: connect.CodeNotFound, job.PipelineNotFound: connect.CodeNotFound,
		job.Busy: connect.CodeResourceExhausted, job.PowerPolicy: connect.CodeFailedPrecondition,
		job.NoBackend: connect.CodeUnavailable, job.BackendFailed: connect.CodeUnavailable, job.Stopping: connect.CodeUnavailable,
		job.DeadlinePassed: connect.CodeDeadlineExceeded, job.Cancelled: connect.CodeCanceled, job.Forbidden: connect.CodePermissionDenied,
		job.Unauthenticated: connect.CodeUnauthenticated, job.OverLimit: connect.CodeResourceExhausted,
		"something new": connect.CodeInternal,
	} {
		if got := grpcapi.CodeOf(code); got != want {
			t.Errorf("%s is %v, want %v", code, got, want)
		}
	}
}

func TestRequestsAtFaultAreToldWhereTheyAre(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	for field, q := range map[string]*computev1.GenerateRequest{
		"prompt: it is empty":              {Model: "m"},
		"options.max_tokens: ":             {Options: &computev1.GenerationOptions{MaxTokens: -1}},
		"options.temperature: ":            {Options: &computev1.GenerationOptions{Temperature: float32(math.NaN())}},
		"options.top_p: ":                  {Options: &computev1.GenerationOptions{TopP: float32(math.Inf(1))}},
		"options.greedy: ":                 {Options: &computev1.GenerationOptions{Greedy: true, Temperature: 1}},
		"options.context_length: ":         {Options: &computev1.GenerationOptions{ContextLength: math.MinInt32}},
		"annotations.max_power_watts: ":    {Annotations: &computev1.JobAnnotations{MaxPowerWatts: -15}},
		"annotations.max_latency_ms: ":     {Annotations: &computev1.JobAnnotations{MaxLatencyMs: -1}},
		"annotations.class: \"urgent\"":    {Annotations: &computev1.JobAnnotations{Class: "urgent"}},
		"annotations.preference: \"nope\"": {Annotations: &computev1.JobAnnotations{Preference: "nope"}},
		"request_id: ":                     {RequestId: "two words"},
	} {
		if !strings.HasPrefix(field, "prompt") {
			q.Prompt = "Why?"
		}
		_, err := r.calls.generate(within(t), q)
		fails(t, field, err, codes.InvalidArgument, field)
		s, err := r.calls.stream(within(t), q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = all(s)
		fails(t, field+", streamed", err, codes.InvalidArgument, field)
	}
	ctx := metadata.AppendToOutgoingContext(within(t), "x-max-power-watts", "many")
	_, err := r.calls.generate(ctx, ask())
	fails(t, "metadata", err, codes.InvalidArgument, "X-Max-Power-Watts")
}

func TestFailuresOfJobsAreTold(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))}, place{power.NPU, scripted(refuses(503, `{"error":"server busy"}`))})
	try := func(model string, a *computev1.JobAnnotations) (metadata.MD, error) {
		var trailer metadata.MD
		_, err := r.calls.generate(within(t), &computev1.GenerateRequest{Prompt: "Why?", Model: model, Annotations: a}, grpc.Trailer(&trailer))
		return trailer, err
	}
	_, err := try("nope", nil)
	fails(t, "a model that there is not", err, codes.NotFound, "there are m:latest")
	_, err = try("m", &computev1.JobAnnotations{Target: "ollama-tpu"})
	fails(t, "a backend that there is not", err, codes.NotFound, "ollama-tpu")
	trailer, err := try("m", &computev1.JobAnnotations{Target: "npu"})
	fails(t, "a busy backend", err, codes.ResourceExhausted, "server busy")
	if len(trailer.Get("retry-after")) != 1 || len(trailer.Get("x-request-id")) != 1 {
		t.Errorf("the trailer is %v", trailer)
	}
	_, err = try("m", &computev1.JobAnnotations{MaxPowerWatts: 1})
	fails(t, "a cap that none keeps", err, codes.Unavailable, "draws 28.0 W")
	alone := newRig(t)
	_, err = alone.calls.generate(within(t), ask())
	fails(t, "no backend at all", err, codes.Unavailable, "")
}

func TestDeadlines(t *testing.T) {
	gone := make(chan time.Time, 2)
	server := scripted(hanging(gone))
	r := newRig(t, place{power.CPU, server})
	q := ask()
	q.Annotations = &computev1.JobAnnotations{DeadlineMs: 300}
	_, err := r.calls.generate(within(t), q)
	fails(t, "the job's", err, codes.DeadlineExceeded, "300 ms")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = r.calls.generate(ctx, ask())
	fails(t, "the call's", err, codes.DeadlineExceeded, "")
	let(t, server, gone)
}

// post sends a body over HTTP/1.1, and returns what came of it.
func post(t *testing.T, r *rig, method, kind string, body []byte, headers ...string) (status int, header http.Header, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, "http://"+r.addr+prefix+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(all)
}

func TestWhatCannotBeReadIsRefused(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	huge := `{"prompt":"` + strings.Repeat("x", maxBody) + `"}`
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(huge))
	_ = z.Close()
	for _, c := range []struct {
		name, kind string
		body       []byte
		headers    []string
		status     int
		code       string
	}{
		{"broken JSON", "application/json", []byte(`{"prompt":`), nil, 400, "invalid_argument"},
		{"a number for a text", "application/json", []byte(`{"prompt":7}`), nil, 400, "invalid_argument"},
		{"a text for a number", "application/json", []byte(`{"prompt":"x","options":{"max_tokens":"many"}}`), nil, 400, "invalid_argument"},
		{"more than 32 bits", "application/json", []byte(`{"prompt":"x","options":{"max_tokens":4294967296}}`), nil, 400, "invalid_argument"},
		{"a list", "application/json", []byte(`[]`), nil, 400, "invalid_argument"},
		{"nothing", "application/json", nil, nil, 400, "invalid_argument"},
		{"no UTF-8", "application/json", []byte("{\"prompt\":\"\xff\"}"), nil, 400, "invalid_argument"},
		{"broken protobuf", "application/proto", []byte{0x0a, 0xff}, nil, 400, "invalid_argument"},
		{"a message in the place of a text", "application/proto", []byte{0x08, 0x01}, nil, 400, "invalid_argument"},
		{"no UTF-8 in protobuf", "application/proto", []byte{0x0a, 0x01, 0xff}, nil, 400, "invalid_argument"},
		{"too large", "application/json", []byte(huge), nil, 429, "resource_exhausted"},
		{"too large once unpacked", "application/json", packed.Bytes(), []string{"Content-Encoding: gzip"}, 429, "resource_exhausted"},
		{"packed as nobody knows", "application/json", []byte(`{}`), []string{"Content-Encoding: zip"}, 501, "unimplemented"},
	} {
		status, _, text := post(t, r, "Generate", c.kind, c.body, c.headers...)
		if status != c.status || !strings.Contains(text, `"code":"`+c.code+`"`) || !strings.Contains(text, `"message":"`) {
			t.Errorf("%s: got %d %.200s", c.name, status, text)
		}
	}
	if status, _, text := post(t, r, "Generate", "application/json", []byte(`{"prompt":"x","model":"m","nonsense":{"a":[1]}}`)); status != 200 {
		t.Errorf("what is not known is not ignored: %d %s", status, text)
	}
	if status, _, _ := post(t, r, "Generate", "text/html", []byte(`x`)); status != http.StatusUnsupportedMediaType {
		t.Errorf("HTML: %d", status)
	}
	_, err := r.calls.generate(within(t), &computev1.GenerateRequest{Prompt: strings.Repeat("x", maxBody)})
	fails(t, "too large over gRPC", err, codes.ResourceExhausted, "")
}

func TestFramesThatBreakOffEndTheCallAlone(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	frame := func(length uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, length), body...)
	}
	for name, body := range map[string][]byte{
		"nothing":            nil,
		"half a head":        {0, 0},
		"less than promised": frame(100, "x"),
		"2 GB promised":      frame(2<<30, "x"),
		"flags nobody knows": {0x7e, 0, 0, 0, 0},
		"packed, and is not": {1, 0, 0, 0, 1, 'x'},
	} {
		for _, kind := range []string{"application/grpc-web+proto", "application/connect+proto"} {
			status, header, text := post(t, r, "GenerateStream", kind, body)
			if whole := fmt.Sprint(status, header, text); !strings.Contains(strings.ToLower(whole), "grpc-status") && !strings.Contains(text, `"code"`) {
				t.Errorf("%s as %s: %s", name, kind, whole)
			}
		}
	}
	if _, err := r.calls.generate(within(t), ask()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWordsAreFitForTheWire(t *testing.T) {
	for name, text := range map[string]string{
		"no UTF-8": "\xff\xfeHTTP", "long": strings.Repeat("é", 4000), "long and no UTF-8": strings.Repeat("\x80", 4000),
	} {
		if got := grpcapi.Clip(text); !utf8.ValidString(got) || len(got) > 3*2048+8 {
			t.Errorf("%s: %d bytes, %.20q", name, len(got), got)
		}
	}
}

// FuzzGenerate decodes what a client may send, and makes a job of it.
func FuzzGenerate(f *testing.F) {
	whole := &computev1.GenerateRequest{
		Prompt: "Why?", Model: "m", RequestId: "a", System: "s",
		Annotations: &computev1.JobAnnotations{Target: "npu", Class: "background", MaxPowerWatts: 15, Custom: map[string]string{"a": "b"}},
		Options:     &computev1.GenerationOptions{Temperature: 0.5, Stop: []string{"x"}, MaxTokens: 3},
	}
	wire, _ := proto.Marshal(whole)
	text, _ := protojson.Marshal(whole)
	f.Add(wire, false)
	f.Add(text, true)
	f.Add([]byte(`{"prompt":"x","options":{"temperature":"NaN"},"annotations":{"maxPowerWatts":-1}}`), true)
	f.Fuzz(func(t *testing.T, body []byte, inJSON bool) {
		q := new(computev1.GenerateRequest)
		decode := proto.Unmarshal
		if inJSON {
			decode = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal
		}
		if decode(body, q) != nil {
			return
		}
		j, err := grpcapi.GenerateJob(q, http.Header{})
		switch {
		case j.ID == "":
			t.Error("a job without a name")
		case err != nil && grpcapi.CodeOf(codeIn(err)) != connect.CodeInvalidArgument:
			t.Errorf("it fails with %v", err)
		case err == nil && (j.Content.Prompt == "" || j.MaxTokens < 0 || j.MaxPower < 0 || j.MaxLatency < 0 || j.Deadline < 0):
			t.Errorf("a job that cannot be: %+v", j)
		}
	})
}

func codeIn(err error) job.Code {
	var e *job.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
