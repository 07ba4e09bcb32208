package grpcapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/power"
)

func TestAnswerInOnePieceTellsWhatItTook(t *testing.T) {
	const between = 500 * time.Millisecond // the first token and the rest
	slow := func(w http.ResponseWriter, r *http.Request) {
		says(piece("It "))(w, r)
		select {
		case <-time.After(between):
			says(piece("is."), last)(w, r)
		case <-r.Context().Done():
		}
	}
	r := newRig(t, place{power.NVIDIA, scripted(slow)}, place{power.NPU, scripted(says(last))})
	var header metadata.MD
	q := ask()
	q.RequestId = "mine"
	a, err := r.calls.generate(within(t), q, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	if a.Response != "It is." || a.BackendUsed != "ollama-nvidia" || a.FromCache || a.Model != "m" || a.RequestId != "mine" || header.Get("x-request-id")[0] != "mine" {
		t.Errorf("got %v, and %v", a, header)
	}
	to := a.Routing
	if to.Backend != "ollama-nvidia" || !strings.Contains(to.Reason, "least cost") || to.EstimatedPowerWatts != 55 || to.EstimatedLatencyMs < 150 ||
		len(to.Alternatives) != 1 || to.Hardware != "nvidia" || to.Tier != "mains" || to.TierReason == "" || to.EstimatedEnergyJoules <= 0 || to.EstimateQuality != "estimated" {
		t.Errorf("it went by %v", to)
	}
	took := a.Stats
	if took.TokensGenerated != 3 || took.PromptTokens != 11 || took.TokensPerSecond != 50 || took.LoadTimeUs != 2000 || took.PromptTimeUs != 4000 || took.GenerationTimeUs != 60000 {
		t.Errorf("the backend's own figures are %v", took)
	}
	// A loaded machine may see the first token late.
	if took.TimeToFirstTokenUs <= took.QueueTimeUs || took.TotalTimeUs < took.TimeToFirstTokenUs+(between/2).Microseconds() || int64(took.TotalTimeMs) != took.TotalTimeUs/1000 {
		t.Errorf("the times are %v", took)
	}
	if took.EnergyQuality != "estimated" || took.EnergyJoules <= 0 || took.EnergyWh <= 0 || took.EnergySource == "" || took.JoulesPerToken <= 0 {
		t.Errorf("the energy is %v", took)
	}
}

func TestJobMayTakeLongerThanAClientMayNotRead(t *testing.T) {
	t.Parallel()
	slow := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * stalled):
			says(piece("It"), last)(w, r)
		case <-r.Context().Done():
		}
	}
	r := newRig(t, place{power.CPU, scripted(slow)})
	r.SetStalled(stalled)
	if a, err := r.calls.generate(within(t), ask()); err != nil || a.Response != "It" {
		t.Errorf("in one piece: %v, %v", a, err)
	}
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := all(s); err != nil || len(list) != 2 {
		t.Errorf("streamed: %v, %v", list, err)
	}
}

func TestStreamMayBeSilentForLongerThanAClientMayNotRead(t *testing.T) {
	t.Parallel()
	thinks := func(w http.ResponseWriter, r *http.Request) {
		for _, p := range []string{piece("It "), piece("is."), last} {
			says(p)(w, r)
			select {
			case <-time.After(2 * stalled):
			case <-r.Context().Done():
			}
		}
	}
	r := newRig(t, place{power.CPU, scripted(thinks)})
	r.SetStalled(stalled)
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := all(s); err != nil || len(list) != 3 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestStreamRules(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(piece("It "), piece("is "), piece("4."), last))})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	if err != nil || len(list) != 4 {
		t.Fatalf("got %d messages, %v", len(list), err)
	}
	for i, m := range list {
		first, end := i == 0, i == len(list)-1
		if want := []string{"It ", "is ", "4.", ""}[i]; m.Token != want || m.Done != end {
			t.Errorf("message %d is %v", i, m)
		}
		if (m.BackendUsed == "ollama-cpu") != first || (m.Stats != nil) != end || (m.Routing != nil) != (first || end) || (m.RequestId != "") != (first || end) {
			t.Errorf("message %d has %v", i, m)
		}
	}
	if got := list[3].Stats; got.TokensGenerated != 3 || got.PromptTokens != 11 || list[3].Model != "m" || list[3].RequestId != list[0].RequestId {
		t.Errorf("the last is %v", list[3])
	}
}

func TestAnswerWithoutTextIsOneMessage(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	if err != nil || len(list) != 1 || !list[0].Done || list[0].BackendUsed != "ollama-cpu" || list[0].Stats == nil {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestLastLineMayHaveTextAndBeLong(t *testing.T) {
	long := `{"response":"end","done":true,"eval_count":1,"context":[` + strings.Repeat("12345,", 20_000) + `1]}` + "\n"
	r := newRig(t, place{power.CPU, scripted(says(piece("The "), long))})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	if err != nil || len(list) != 3 || list[1].Token != "end" || list[1].Done || list[2].Token != "" || !list[2].Done {
		t.Errorf("got %v, %v", list, err)
	}
	if a, err := r.calls.generate(within(t), ask()); err != nil || a.Response != "The end" {
		t.Errorf("in one piece: %v, %v", a, err)
	}
}

func TestOptionsReachTheBackend(t *testing.T) {
	server := scripted(says(last))
	r := newRig(t, place{power.CPU, server})
	for _, c := range []struct {
		options *computev1.GenerationOptions
		want    string
	}{
		{nil, `{}`},
		{&computev1.GenerationOptions{}, `{}`},
		{
			&computev1.GenerationOptions{MaxTokens: 7, Temperature: 0.5, TopP: 0.25, TopK: 40, Stop: []string{"\n", "END"}, ContextLength: 2048},
			`{"num_predict":7,"temperature":0.5,"top_p":0.25,"top_k":40,"stop":["\n","END"],"num_ctx":2048}`,
		},
		{&computev1.GenerationOptions{Greedy: true}, `{"temperature":0}`},
	} {
		q := ask()
		q.Options, q.System = c.options, "Be brief."
		if _, err := r.calls.generate(within(t), q); err != nil {
			t.Fatal(err)
		}
		bodies := server.bodies()
		var got struct {
			Model, Prompt, System string
			Options               any
		}
		var want any
		if err := json.Unmarshal([]byte(bodies[len(bodies)-1]), &got); err != nil {
			t.Fatal(err)
		}
		_ = json.Unmarshal([]byte(c.want), &want)
		if got.Options == nil {
			got.Options = map[string]any{}
		}
		if !reflect.DeepEqual(got.Options, want) || got.Prompt != "Why?" || got.System != "Be brief." || got.Model != "m" {
			t.Errorf("%v: the backend got %s", c.options, bodies[len(bodies)-1])
		}
	}
}

func TestAnnotationsChooseTheBackend(t *testing.T) {
	places := []place{
		{power.NPU, scripted(says(last))},
		{power.IntegratedGPU, scripted(says(last))},
		{power.NVIDIA, scripted(says(last))},
		{power.CPU, scripted(says(last))},
	}
	r := newRig(t, places...)
	for _, c := range []struct {
		name string
		a    *computev1.JobAnnotations
		want string
	}{
		{"nothing said", nil, "ollama-nvidia"},
		{"the fewest joules", &computev1.JobAnnotations{PreferPowerEfficiency: true}, "ollama-npu"},
		{"the fastest", &computev1.JobAnnotations{LatencyCritical: true}, "ollama-nvidia"},
		{"an id", &computev1.JobAnnotations{Target: "ollama-cpu"}, "ollama-cpu"},
		{"a hardware word", &computev1.JobAnnotations{Target: "igpu"}, "ollama-igpu"},
		{"any", &computev1.JobAnnotations{Target: "auto"}, "ollama-nvidia"},
		{"15 W exclude the GPU of 55 W", &computev1.JobAnnotations{MaxPowerWatts: 15, LatencyCritical: true}, "ollama-igpu"},
		{"500 ms exclude the slow", &computev1.JobAnnotations{MaxLatencyMs: 500, PreferPowerEfficiency: true}, "ollama-igpu"},
		{"another system's word", &computev1.JobAnnotations{Preference: "MIN_OVERALL_POWER"}, "ollama-npu"},
		{"nobody waits", &computev1.JobAnnotations{Class: "background"}, "ollama-npu"},
	} {
		q := ask()
		q.Annotations = c.a
		if a, err := r.calls.generate(within(t), q); err != nil || a.BackendUsed != c.want || a.Routing.Backend != c.want {
			t.Errorf("%s: got %v, %v, want %s", c.name, a, err, c.want)
		}
	}
	ctx := metadata.AppendToOutgoingContext(within(t), "x-target-backend", "cpu")
	if a, err := r.calls.generate(ctx, ask()); err != nil || a.BackendUsed != "ollama-cpu" {
		t.Errorf("by metadata: got %v, %v", a, err)
	}
}

func TestCapsHoldOnFallback(t *testing.T) {
	forbidden := scripted(says(last))
	r := newRig(t, place{power.IntegratedGPU, scripted(refuses(500, "broken"))}, place{power.NPU, scripted(says(piece("ok"), last))}, place{power.NVIDIA, forbidden})
	q := ask()
	q.Annotations = &computev1.JobAnnotations{MaxPowerWatts: 15, LatencyCritical: true}
	a, err := r.calls.generate(within(t), q)
	if err != nil || a.BackendUsed != "ollama-npu" || len(a.Routing.FailedAttempts) != 1 || !strings.Contains(a.Routing.FailedAttempts[0], "ollama-igpu") || a.Routing.Refused["ollama-nvidia"] == "" {
		t.Errorf("got %v, %v", a, err)
	}
	q.Annotations = &computev1.JobAnnotations{MaxPowerWatts: 15, MaxLatencyMs: 500}
	_, err = r.calls.generate(within(t), q)
	fails(t, "only the broken one may run it", err, codes.Unavailable, "55.0 W")
	if asked := forbidden.bodies(); len(asked) > 0 {
		t.Errorf("the GPU of 55 W was asked under a cap of 15 W: %s", asked)
	}
}

func TestStreamOfAFallbackTellsWhoAnswers(t *testing.T) {
	r := newRig(t, place{power.NVIDIA, scripted(refuses(500, "broken"))}, place{power.CPU, scripted(says(piece("ok"), last))})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	if err != nil || len(list) != 2 || list[0].BackendUsed != "ollama-cpu" || list[0].Routing.Backend != "ollama-cpu" || len(list[1].Routing.FailedAttempts) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestClientWhoLeavesStopsTheBackendAtOnce(t *testing.T) {
	gone := make(chan time.Time, 1)
	r := newRig(t, place{power.CPU, scripted(hanging(gone))})
	best := time.Hour
	for range 5 { // what else this machine does is not the daemon's time
		ctx, cancel := context.WithCancel(within(t))
		s, err := r.calls.stream(ctx, ask())
		if err != nil {
			t.Fatal(err)
		}
		if m, err := s.Recv(); err != nil || m.Token != "Hel" {
			t.Fatalf("the stream begins with %v, %v", m, err)
		}
		began := time.Now()
		cancel()
		select {
		case at := <-gone:
			best = min(best, at.Sub(began))
		case <-time.After(patience):
			t.Fatal("the backend goes on")
		}
	}
	if best > 100*time.Millisecond {
		t.Errorf("it took %v", best)
	}
}

func TestBrokenStreamIsNotWhole(t *testing.T) {
	breaks := func(w http.ResponseWriter, r *http.Request) {
		says(piece("Hel"))(w, r)
		panic(http.ErrAbortHandler)
	}
	r := newRig(t, place{power.CPU, scripted(breaks)})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	fails(t, "a backend that breaks off", err, codes.Unavailable, "ollama-cpu")
	if len(list) != 1 || list[0].Token != "Hel" || list[0].Done {
		t.Errorf("before that came %v", list)
	}
}

func TestSlowReaderGetsEverything(t *testing.T) {
	const pieces, size = 400, 2 << 10 // far more than all buffers hold
	floods := func(w http.ResponseWriter, _ *http.Request) {
		for range pieces {
			if _, err := w.Write([]byte(piece(strings.Repeat("x", size)))); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = w.Write([]byte(last))
	}
	r := newRig(t, place{power.CPU, scripted(floods)})
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.calls.generate(within(t), ask()) // meanwhile nothing is read of the first
	if err != nil || len(other.Response) != pieces*size {
		t.Fatalf("beside it: %v", err)
	}
	list, err := all(s)
	total := len(first.Token)
	for _, m := range list {
		total += len(m.Token)
	}
	if err != nil || total != pieces*size || !list[len(list)-1].Done {
		t.Errorf("got %d bytes, %v", total, err)
	}
}

func TestReaderWhoStopsReadingIsGivenUp(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	floods := func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(piece(strings.Repeat("x", 8<<10)))); err != nil {
				return
			}
		}
	}
	r := newRig(t, place{power.CPU, scripted(floods)})
	r.SetStalled(stalled)
	s, err := r.calls.stream(within(t), ask())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the backend still writes for somebody who does not read")
	}
	if list, err := all(s); err == nil {
		t.Errorf("the stream of %d messages is whole", len(list))
	}
}

func TestAnswerInOnePieceIsBounded(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(piece(strings.Repeat("x", 100)), last))})
	r.SetLongest(99)
	_, err := r.calls.generate(within(t), ask())
	fails(t, "too long an answer", err, codes.Canceled, "have it streamed")
}

func TestEmbed(t *testing.T) {
	vectors := `{"embeddings":[[0.5,-1,2]],"prompt_eval_count":3}`
	server := scripted(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(vectors)) })
	r := newRig(t, place{power.CPU, server})
	embed := func(q *computev1.EmbedRequest) (*computev1.EmbedResponse, error) {
		return call[computev1.EmbedResponse](within(t), r.calls, "Embed", q)
	}
	a, err := embed(&computev1.EmbedRequest{Text: "sky", Model: "m"})
	if err != nil || !reflect.DeepEqual(a.Embedding, []float32{0.5, -1, 2}) || a.BackendUsed != "ollama-cpu" || a.Routing.Reason == "" ||
		a.Stats.TokensGenerated != 0 || a.Stats.PromptTokens != 3 || a.RequestId == "" || a.Model != "m" {
		t.Errorf("got %v, %v", a, err)
	}
	_, err = embed(&computev1.EmbedRequest{Model: "m"})
	fails(t, "no text", err, codes.InvalidArgument, "text: it is empty")
	again, err := embed(&computev1.EmbedRequest{Text: "sky", Model: "m"})
	if err != nil || !again.FromCache || !reflect.DeepEqual(again.Embedding, a.Embedding) || again.Stats.EnergyQuality != "none" || a.FromCache || len(server.bodies()) != 1 {
		t.Errorf("once more: %v, %v", again, err)
	}
	vectors = `{"embeddings":[]}`
	_, err = embed(&computev1.EmbedRequest{Text: "ground", Model: "m"})
	fails(t, "no vector", err, codes.Unavailable, "0 vectors")
}

func TestAnswersFromTheCache(t *testing.T) {
	server := scripted(says(piece("It "), piece("is."), last))
	r := newRig(t, place{power.CPU, server})
	q := ask()
	q.Options = &computev1.GenerationOptions{Greedy: true}
	for n := range 2 {
		a, err := r.calls.generate(within(t), q)
		if err != nil || a.Response != "It is." || a.BackendUsed != "ollama-cpu" || a.FromCache != (n > 0) || (a.Stats.EnergyQuality == "none") != (n > 0) || a.Stats.TokensGenerated != 3 {
			t.Errorf("the %d. time: %v, %v", n+1, a, err)
		}
	}
	s, err := r.calls.stream(within(t), q)
	if err != nil {
		t.Fatal(err)
	}
	list, err := all(s)
	if err != nil || len(list) != 2 || list[0].Token != "It is." || list[0].FromCache || list[0].BackendUsed != "ollama-cpu" || !strings.HasPrefix(list[0].Routing.Reason, "answered before") ||
		!list[1].Done || !list[1].FromCache || list[1].Stats.EnergyWh != 0 || list[1].Stats.EnergyQuality != "none" {
		t.Errorf("as a stream: %v, %v", list, err)
	}
	// Left to chance, an answer is given again to who says so.
	q.Options = nil
	for n, cached := range []bool{false, false, true} {
		q.Annotations = &computev1.JobAnnotations{CacheEnabled: n > 0}
		if a, err := r.calls.generate(within(t), q); err != nil || a.FromCache != cached {
			t.Errorf("the %d. time: from cache: %v, %v", n+1, a.GetFromCache(), err)
		}
	}
}

func TestExplainRunsNothing(t *testing.T) {
	server := scripted(says(last))
	r := newRig(t, place{power.NVIDIA, server}, place{power.NPU, server})
	explain := func(q *computev1.ExplainRequest) (*computev1.ExplainResponse, error) {
		return call[computev1.ExplainResponse](within(t), r.calls, "Explain", q)
	}
	a, err := explain(&computev1.ExplainRequest{Request: ask(), Tier: "battery"})
	if err != nil || a.Routing.Backend != "ollama-npu" && a.Routing.Backend != "ollama-nvidia" || a.Routing.Tier != "battery" || a.SecondWatts != 15 || len(a.Prospects) != 2 || !a.Prospects[0].Fit || a.Prospects[0].EnergyJoules <= 0 {
		t.Errorf("got %v, %v", a, err)
	}
	q := ask()
	q.Annotations = &computev1.JobAnnotations{MaxPowerWatts: 1}
	if a, err = explain(&computev1.ExplainRequest{Request: q}); err != nil || a.Error == "" || a.Routing.Backend != "" || a.Prospects[0].Verdict == "" {
		t.Errorf("where nothing fits: %v, %v", a, err)
	}
	_, err = explain(&computev1.ExplainRequest{Request: ask(), Tier: "loud"})
	fails(t, "no such tier", err, codes.InvalidArgument, "loud")
	if asked := server.bodies(); len(asked) > 0 {
		t.Errorf("the backend was asked %s", asked)
	}
}
