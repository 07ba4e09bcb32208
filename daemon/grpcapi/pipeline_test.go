package grpcapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/power"
)

// shelve writes a pipeline onto the rig's shelf.
func (r *rig) shelve(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.shelf, name+".yaml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// chatting answers chats by their last words, each word of an answer with that
// probability. An answer that begins with ! is an error.
func chatting(answers map[string]string, probability float64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct{ Content string }
			Logprobs bool
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		words := strings.Fields(q.Messages[len(q.Messages)-1].Content)
		answer := answers[words[len(words)-1]]
		if why, failed := strings.CutPrefix(answer, "!"); failed {
			http.Error(w, why, http.StatusInternalServerError)
			return
		}
		var lines []string
		for _, word := range strings.SplitAfter(answer, " ") {
			probabilities := ""
			if q.Logprobs {
				probabilities = fmt.Sprintf(`"logprobs":[{"logprob":%v}],`, math.Log(probability))
			}
			lines = append(lines, fmt.Sprintf(`{%s"message":{"content":%q}}`+"\n", probabilities, word))
		}
		says(append(lines, strings.Replace(last, `"response":""`, `"message":{}`, 1))...)(w, r)
	}
}

const sorting = `
vars: {tone: kind}
stages:
  - {id: sort, target: npu, prompt: "sort {{.Input}}", next: [{when: {equals: text}, to: sum}, {to: answer}]}
  - {id: answer, prompt: "answer {{.Input}}", next: end}
  - {id: sum, target: cpu, prompt: "{{.Stages.sort}} {{.Vars.tone}}"}
`

func (r *rig) sorting() {
	r.shelve("sorting", sorting)
}

// places are an NPU that sorts, and a CPU that sums up.
func places() []place {
	return []place{{power.NPU, scripted(chatting(map[string]string{"it": "Text."}, 1))}, {power.CPU, scripted(chatting(map[string]string{"kind": "In short", "rude": "!broken"}, 1))}}
}

func TestPipelineTellsWhatItCameTo(t *testing.T) {
	r := newRig(t, places()...)
	r.sorting()
	before := time.Now().Unix()
	a, err := call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", &computev1.ExecutePipelineRequest{
		PipelineId: "sorting", Input: map[string]string{"input": "it"}, Model: "m", RequestId: "mine",
		Options: &computev1.PipelineOptions{CollectMetrics: true, PreserveContext: true}, Annotations: &computev1.JobAnnotations{MaxPowerWatts: 50},
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.PipelineId != "sorting" || !a.Success || a.Error != "" || len(a.FinalOutput) != 1 || a.FinalOutput["sum"] != "In short" || a.TotalTimeMs < 80 ||
		a.RequestId != "mine" || a.EnergyQuality != "estimated" || a.EnergyJoules <= 0 || math.Abs(float64(a.TotalEnergyWh)*3600-a.EnergyJoules) > 1e-3*a.EnergyJoules {
		t.Errorf("got %v", a)
	}
	sum := 0.0
	for i, want := range []*computev1.StageResult{
		{StageId: "sort", Backend: "ollama-npu", Output: "Text."}, {StageId: "sum", Backend: "ollama-cpu", Output: "In short"},
	} {
		s := a.StageResults[i]
		if s.StageId != want.StageId || s.Backend != want.Backend || s.Output != want.Output || !s.Success || s.Error != "" || s.Routing.Reason == "" {
			t.Errorf("stage %d is %v", i, s)
		}
		m := s.Metadata
		if m.StartTimeUnix < before || m.EndTimeUnix < m.StartTimeUnix || m.DurationMs < 40 || m.Model != "m" || m.TokensIn != 11 || m.TokensOut != 3 || m.Confidence != 0 ||
			m.Temperature != 61 || m.Forwarded || m.AttemptCount != 1 || m.EnergyQuality != "estimated" || len(m.Jobs) != 1 || m.Jobs[0].EnergyJoules != m.EnergyJoules {
			t.Errorf("of stage %d it tells %v", i, m)
		}
		sum += m.EnergyJoules
	}
	if math.Abs(sum-a.EnergyJoules) > 1e-9 {
		t.Errorf("the stages took %v, and all %v", sum, a.EnergyJoules)
	}
}

// pipelineStream has a run streamed.
func (r *rig) pipelineStream(ctx context.Context, q *computev1.ExecutePipelineRequest) (list []*computev1.PipelineStreamResponse, err error) {
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, prefix+"ExecutePipelineStream")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SendMsg(q), s.CloseSend()); err != nil {
		return nil, err
	}
	for {
		m := new(computev1.PipelineStreamResponse)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return list, err
		}
		list = append(list, m)
	}
}

func TestPipelineStreamRules(t *testing.T) {
	r := newRig(t, places()...)
	r.sorting()
	for _, streams := range []bool{true, false} {
		list, err := r.pipelineStream(within(t), &computev1.ExecutePipelineRequest{
			PipelineId: "sorting", Input: map[string]string{"input": "it"}, Options: &computev1.PipelineOptions{EnableStreaming: streams},
		})
		var told []string
		for _, m := range list {
			switch {
			case m.FinalResult != nil:
				told = append(told, fmt.Sprint("end ", m.Done, m.FinalResult.Success, len(m.FinalResult.StageResults)))
			case m.StageResult != nil:
				told = append(told, fmt.Sprint(m.StageId, " ", m.Done, m.StageResult.Metadata == nil, m.StageResult.Output))
			default:
				told = append(told, m.StageId+" "+m.PartialOutput)
			}
		}
		want := "sort Text.|sort true trueText.|sum In |sum short|sum true trueIn short|end true true 2"
		if !streams {
			want = "sort true trueText.|sum true trueIn short|end true true 2"
		}
		if got := strings.Join(told, "|"); err != nil || got != want {
			t.Errorf("got %s, %v", got, err)
		}
	}
}

func TestPipelineHandsOnWhereTheAnswerIsUnsure(t *testing.T) {
	r := newRig(t, place{power.NPU, scripted(chatting(map[string]string{"x": "hm hm"}, 0.25))}, place{power.NVIDIA, scripted(chatting(map[string]string{"x": "yes"}, 0.75))})
	r.shelve("ask", "stages: [{id: a, target: npu, prompt: x, escalate: {target: nvidia, confidence_below: 0.5}}]")
	for most, want := range map[int32]*computev1.StageMetadata{
		0:  {Confidence: 0.75, Forwarded: true, ForwardReason: "confidence 0.25 is below 0.50", AttemptCount: 2, TokensOut: 6},
		15: {Confidence: 0.25, ForwardReason: "confidence 0.25 is below 0.50, and the other model has no answer: no backend", AttemptCount: 1, TokensOut: 3},
	} {
		a, err := call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", &computev1.ExecutePipelineRequest{
			PipelineId: "ask", Options: &computev1.PipelineOptions{CollectMetrics: true}, Annotations: &computev1.JobAnnotations{MaxPowerWatts: most},
		})
		if err != nil || !a.Success {
			t.Errorf("within %d W: %v, %v", most, a, err)
			continue
		}
		m := a.StageResults[0].Metadata
		if math.Abs(float64(m.Confidence-want.Confidence)) > 1e-4 || m.Forwarded != want.Forwarded || !strings.HasPrefix(m.ForwardReason, want.ForwardReason) || m.AttemptCount != want.AttemptCount || m.TokensOut != want.TokensOut {
			t.Errorf("within %d W: %v", most, m)
		}
	}
}

func TestPipelineThatFailsTellsHowFarItCame(t *testing.T) {
	r := newRig(t, places()...)
	r.shelve("sorting", strings.ReplaceAll(sorting, `"{{.Stages.sort}}`, `"{{or .Stages.sort .Input}}`))
	ask := &computev1.ExecutePipelineRequest{PipelineId: "sorting", Input: map[string]string{"input": "it", "tone": "rude"}, Options: &computev1.PipelineOptions{}}
	a, err := call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", ask)
	if err != nil || a.Success || !strings.HasPrefix(a.Error, "backend failed: stage sum") || len(a.StageResults) != 2 || !a.StageResults[0].Success || a.StageResults[1].Success ||
		a.StageResults[1].Error == "" || a.FinalOutput["sort"] != "Text." || a.EnergyQuality != "unknown" || a.TotalEnergyWh != 0 {
		t.Errorf("got %v, %v", a, err)
	}
	// Going on, a failure is one of the results.
	r.shelve("on", "stages:\n  - {id: a, prompt: x, model: none}\n  - {id: b, target: npu, prompt: it}")
	ask = &computev1.ExecutePipelineRequest{PipelineId: "on", Options: &computev1.PipelineOptions{ContinueOnError: true}}
	a, err = call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", ask)
	if err != nil || !a.Success || a.StageResults[0].Success || !strings.Contains(a.StageResults[0].Error, "model not found") || a.FinalOutput["b"] != "Text." {
		t.Errorf("going on: %v, %v", a, err)
	}
}

func TestBadPipelineCallsAreRefused(t *testing.T) {
	r := newRig(t, places()...)
	r.sorting()
	r.shelve("circle", "stages: [{id: a, prompt: x}, {id: b, prompt: x, next: a}]")
	for _, c := range []struct {
		q    *computev1.ExecutePipelineRequest
		code codes.Code
		says string
	}{
		{&computev1.ExecutePipelineRequest{}, codes.NotFound, "pipeline not found"},
		{&computev1.ExecutePipelineRequest{PipelineId: "sort"}, codes.NotFound, "sorting"},
		{&computev1.ExecutePipelineRequest{PipelineId: "circle"}, codes.InvalidArgument, "there is no way back, and this is one: a, b, a"},
		{&computev1.ExecutePipelineRequest{PipelineId: "sorting"}, codes.InvalidArgument, "input: it is empty"},
		{&computev1.ExecutePipelineRequest{PipelineId: "sorting", Input: map[string]string{"input": "x", "tune": "x"}}, codes.InvalidArgument, `did you mean "tone"`},
		{&computev1.ExecutePipelineRequest{PipelineId: "sorting", Annotations: &computev1.JobAnnotations{MaxPowerWatts: -1}}, codes.InvalidArgument, "annotations.max_power_watts"},
		{&computev1.ExecutePipelineRequest{PipelineId: "sorting", RequestId: "a b"}, codes.InvalidArgument, "request_id"},
		{&computev1.ExecutePipelineRequest{PipelineId: "sorting", Options: &computev1.PipelineOptions{StageTimeoutMs: -1}}, codes.InvalidArgument, "options.stage_timeout_ms"},
	} {
		_, err := call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", c.q)
		fails(t, fmt.Sprint(c.q), err, c.code, c.says)
		_, err = r.pipelineStream(within(t), c.q)
		fails(t, fmt.Sprint(c.q, ", streamed"), err, c.code, c.says)
	}
}

func TestPipelineEndsWithItsCall(t *testing.T) {
	gone := make(chan time.Time, 2)
	server := scripted(hanging(gone))
	r := newRig(t, place{power.CPU, server})
	r.shelve("two", "stages: [{id: a, prompt: x}, {id: b, prompt: x}]")
	q := &computev1.ExecutePipelineRequest{PipelineId: "two", Options: &computev1.PipelineOptions{ContinueOnError: true}}
	ctx, cancel := context.WithTimeout(within(t), 300*time.Millisecond)
	defer cancel()
	_, err := call[computev1.ExecutePipelineResponse](ctx, r.calls, "ExecutePipeline", q)
	fails(t, "a call that ends", err, codes.DeadlineExceeded, "")
	let(t, server, gone)
	// Its own deadline is of the whole run, and has an answer.
	q.Annotations = &computev1.JobAnnotations{DeadlineMs: 500}
	a, err := call[computev1.ExecutePipelineResponse](within(t), r.calls, "ExecutePipeline", q)
	if err != nil || a.Success || !strings.Contains(a.Error, "deadline passed: stage a") || len(a.StageResults) != 1 {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestStagesMayTakeLongerThanAClientMayNotRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, place{power.CPU, scripted(func(w http.ResponseWriter, q *http.Request) {
		select {
		case <-time.After(2 * stalled):
			says(`{"message":{"content":"x"}}`+"\n", strings.Replace(last, `"response":""`, `"message":{}`, 1))(w, q)
		case <-q.Context().Done():
		}
	})})
	r.SetStalled(stalled)
	r.shelve("two", "stages: [{id: a, prompt: x}, {id: b, prompt: x}]")
	list, err := r.pipelineStream(within(t), &computev1.ExecutePipelineRequest{PipelineId: "two"})
	if err != nil || len(list) != 3 || !list[2].FinalResult.GetSuccess() {
		t.Errorf("got %v, %v", list, err)
	}
}
