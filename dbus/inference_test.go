package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/dbustest"
	"github.com/joulemux/joulemux/power/tracker"
)

type options = map[string]godbus.Variant

func option(v any) godbus.Variant { return godbus.MakeVariant(v) }

func TestGenerate(t *testing.T) {
	r := newRig(t, nil)
	inference := inferenceOf(r.bus.Connect(t))
	var text string
	var info options
	err := inference.Call(InferenceName+".Generate", 0, "Why?", options{
		"model": option("m"), "max_tokens": option(uint16(5)), "temperature": option(0.5), "top_k": option(byte(3)),
		"stop": option([]string{"."}), "system": option("Be brief."), "latency_critical": option(true),
		"custom": option(map[string]godbus.Variant{"who": option(option("me"))}),
	}).Store(&text, &info)
	if err != nil || text != "Hello, world" {
		t.Fatalf("got %q, %v", text, err)
	}
	for name, want := range map[string]any{
		"backend_used": "ollama-npu", "hardware": "npu", "tier": "battery", "model": "m", "request_id": "j1",
		"tokens_generated": int32(3), "energy_joules": 5.0, "energy_quality": "estimated", "tier_reason": "discharging",
	} {
		if got := info[name].Value(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	j := r.runner.last()
	if want := fmt.Sprintf("program of %d", os.Getpid()); j.Client != want {
		t.Errorf("the client is %q, want %q", j.Client, want)
	}
	if j.Kind != job.Generate || !j.Stream || j.PromptBytes != len("Why?Be brief.") || j.Deadline != 24*time.Second ||
		time.Since(j.Arrived) > time.Minute || j.Content.Prompt != "Why?" || j.MaxTokens != 5 || *j.Content.Sampling.TopK != 3 ||
		j.Custom["who"] != "me" || !j.LatencyCritical {
		t.Errorf("the job is %+v", j)
	}
}

func TestTextThatNoBusCarriesIsMadeFit(t *testing.T) {
	r := newRig(t, nil)
	r.runner.set(answers("a\x00b\xff"))
	var text string
	var info options
	if err := inferenceOf(r.bus.Connect(t)).Call(InferenceName+".Generate", 0, "x", options{}).Store(&text, &info); err != nil || text != "a\uFFFDb\uFFFD" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	r := newRig(t, nil)
	inference := inferenceOf(r.bus.Connect(t))
	for _, c := range []struct {
		rule, prompt string
		options      options
		says         string
	}{
		{"an empty prompt", "", nil, "prompt: is empty"},
		{"an unknown option", "x", options{"max_token": option(5)}, `max_token: no such option; did you mean "max_tokens"?`},
		{"a word for a number", "x", options{"max_tokens": option("5")}, "max_tokens: want a number, got string"},
		{"a list for a word", "x", options{"model": option([]string{"m"})}, "model: want a string"},
		{"a list of numbers for one of words", "x", options{"stop": option([]int32{1})}, "stop: want a list of strings"},
		{"a list of variants of the wrong kind", "x", options{"stop": option([]godbus.Variant{option("a"), option(1)})}, "stop: want a string, got int"},
		{"a fraction of a token", "x", options{"max_tokens": option(1.5)}, "max_tokens: want a whole number"},
		{"a format, of an answer in one piece", "x", options{"format": option("text")}, "format: no such option"},
	} {
		if c.options == nil {
			c.options = options{}
		}
		err := inference.Call(InferenceName+".Generate", 0, c.prompt, c.options).Err
		expectError(t, c.rule, err, bus.InvalidArgs, c.says)
	}
}

func TestEveryFailureHasItsName(t *testing.T) {
	const own = "io.github.joulemux.Error."
	r := newRig(t, nil)
	inference := inferenceOf(r.bus.Connect(t))
	for _, c := range []struct {
		err  error
		want string
	}{
		{job.Errorf(job.Invalid, "x"), bus.InvalidArgs},
		{job.Errorf(job.BackendNotFound, "x"), bus.InvalidArgs},
		{job.Errorf(job.Forbidden, "x"), bus.AccessDenied},
		{job.Errorf(job.DeadlinePassed, "x"), bus.Timeout},
		{job.Errorf(job.NoBackend, "x"), own + "NoBackend"},
		{job.Errorf(job.ModelNotFound, "x"), own + "ModelNotFound"},
		{job.Errorf(job.Busy, "x"), own + "Busy"},
		{job.Errorf(job.PowerPolicy, "x"), own + "PowerPolicy"},
		{job.Errorf(job.PromptTooLarge, "x"), own + "PromptTooLarge"},
		{job.Errorf(job.BackendFailed, "bytes \xff\x00 of a server"), own + "BackendFailed"},
		{job.Errorf(job.Cancelled, "x"), own + "Cancelled"},
		{job.Errorf(job.Stopping, ""), own + "Cancelled"},
		{fmt.Errorf("wrapped: %w", job.Errorf(job.Busy, "x")), own + "Busy"},
		{context.Canceled, own + "Cancelled"},
		{tracker.ErrNotHolder, bus.AccessDenied},
		{tracker.ErrNoHold, bus.InvalidArgs},
		{tracker.ErrTooManyHolds, bus.LimitsExceeded},
		{errors.New("something else"), bus.Failed},
	} {
		r.runner.set(fails(c.err))
		err := inference.Call(InferenceName+".Generate", 0, "x", options{}).Err
		expectError(t, c.err.Error(), err, c.want, "")
	}
	r.runner.set(func(context.Context, job.Job, dispatch.Sink) error { panic("bang") })
	expectError(t, "a panic", inference.Call(InferenceName+".Generate", 0, "x", options{}).Err, bus.Failed, "internal error")
}

func TestGenerateEndsItself(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 1)
	r.runner.set(hangs("", cancelled))
	err := inferenceOf(r.bus.Connect(t)).Call(InferenceName+".Generate", 0, "x", options{"deadline_ms": option(20)}).Err
	expectError(t, "a deadline", err, bus.Timeout, "20 ms")
}

func TestAnswerInOnePieceIsBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.limits.text, r.limits.vectors = 10, 40 })
	inference := inferenceOf(r.bus.Connect(t))
	err := inference.Call(InferenceName+".Generate", 0, "x", options{}).Err
	expectError(t, "a long answer", err, "io.github.joulemux.Error.Cancelled", "longer than 10 bytes")
	r.runner.set(func(_ context.Context, j job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		return sink.Chunk(context.Background(), job.Chunk{Last: true, Vectors: [][]float32{{0.5, -1}, {2, 0}}}, report(j, 0)) // 48 bytes
	})
	err = inference.Call(InferenceName+".Embed", 0, []string{"x", "y"}, options{}).Err
	expectError(t, "many vectors", err, "io.github.joulemux.Error.Cancelled", "longer than 40 bytes; have fewer texts")
}

func TestCallerHasFourJobsAtATime(t *testing.T) {
	r := newRig(t, nil)
	cancelled := make(chan error, 10)
	r.runner.set(hangs("", cancelled))
	peer := r.bus.Connect(t)
	inference := inferenceOf(peer)
	for range 4 {
		inference.Go(InferenceName+".Generate", 0, nil, "x", options{})
	}
	dbustest.Eventually(t, "four jobs run", func() bool { r.runner.mu.Lock(); defer r.runner.mu.Unlock(); return len(r.runner.jobs) == 4 })
	_, w := pipe(t)
	for _, call := range []*godbus.Call{
		inference.Call(InferenceName+".Generate", 0, "x", options{}),
		inference.Call(InferenceName+".Embed", 0, []string{"x"}, options{}),
		inference.Call(InferenceName+".GenerateTo", 0, w, []options{message("user", "x")}, options{}),
	} {
		expectError(t, "the fifth", call.Err, bus.LimitsExceeded, "4 jobs under way")
	}
	r.runner.set(answers("Hi"))
	if err := inferenceOf(r.bus.Connect(t)).Call(InferenceName+".Generate", 0, "x", options{}).Err; err != nil {
		t.Errorf("somebody else: %v", err)
	}
	_ = peer.Close()
	for range 4 {
		if err := receive(t, cancelled); !strings.Contains(err.Error(), "left the bus") {
			t.Errorf("a job ended with %v", err)
		}
	}
}

func TestEmbed(t *testing.T) {
	r := newRig(t, nil)
	r.runner.set(func(ctx context.Context, j job.Job, sink dispatch.Sink) error {
		sink.Routed(decision)
		return sink.Chunk(ctx, job.Chunk{Last: true, Vectors: [][]float32{{0.5, -1}, {2, 0}}}, report(j, 0))
	})
	inference := inferenceOf(r.bus.Connect(t))
	var vectors [][]float64
	var info options
	if err := inference.Call(InferenceName+".Embed", 0, []string{"a", "bc"}, options{}).Store(&vectors, &info); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != 2 || !slices.Equal(vectors[0], []float64{0.5, -1}) || info["backend_used"].Value() != "ollama-npu" {
		t.Errorf("got %v, %v", vectors, info)
	}
	if j := r.runner.last(); j.Kind != job.Embed || j.Stream || j.PromptBytes != 3 || !slices.Equal(j.Content.Input, []string{"a", "bc"}) {
		t.Errorf("the job is %+v", j)
	}
	expectError(t, "nothing", inference.Call(InferenceName+".Embed", 0, []string{}, options{}).Err, bus.InvalidArgs, "input")
}

func TestListModels(t *testing.T) {
	r := newRig(t, nil)
	var list []options
	if err := inferenceOf(r.bus.Connect(t)).Call(InferenceName+".ListModels", 0).Store(&list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list {
		got = append(got, fmt.Sprint(m["name"], m["size"], m["backends"], m["resident"]))
	}
	want := []string{
		`"m" @t 1048576 ["ollama-npu", "ollama-igpu"] ["ollama-npu", "ollama-igpu"]`,
		`"n" @t 1048576 ["ollama-igpu"] @as []`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAvailable(t *testing.T) {
	r := newRig(t, nil)
	peer := r.bus.Connect(t)
	inference := inferenceOf(peer)
	if !property[bool](t, inference, InferenceName+".Available") || property[string](t, inference, InferenceName+".Version") != "1.2.3" {
		t.Error("jobs cannot be run")
	}
	signals := hear(t, peer)
	for _, id := range []string{"ollama-npu", "ollama-igpu"} {
		r.backends.Failed(id, &job.Error{Code: job.BackendFailed, Err: errors.New("connection refused")})
	}
	for {
		if s := next(t, signals); s.Path == inferencePath {
			if got := told(t, s); got != "Available=false" {
				t.Errorf("it is told that %s", got)
			}
			break
		}
	}
}

func TestBadMessages(t *testing.T) {
	r := newRig(t, nil)
	inference := inferenceOf(r.bus.Connect(t))
	_, w := pipe(t)
	good := message("user", "x")
	for _, c := range []struct {
		rule     string
		messages []options
		says     string
	}{
		{"none", []options{}, "messages: there are none"},
		{"one without a role", []options{good, {"content": option("x")}}, "messages[1].role: is missing"},
		{"one without content", []options{{"role": option("user")}}, "messages[0].content: is missing"},
		{"a number for text", []options{good, good, {"role": option("user"), "content": option(5)}}, "messages[2].content: want a string (s), got i"},
		{"a key too many", []options{{"role": option("user"), "content": option("x"), "mood": option("good")}}, "messages[0].mood"},
		{"a role that there is not", []options{message("boss", "x")}, `messages[0].role: "boss" is none of`},
	} {
		err := inference.Call(InferenceName+".GenerateTo", 0, w, c.messages, options{}).Err
		expectError(t, c.rule, err, bus.InvalidArgs, c.says)
	}
}
