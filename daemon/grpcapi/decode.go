package grpcapi

import (
	"cmp"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/job"
)

// generateJob returns the job that a request asks for. With an error it has its
// name at least.
func generateJob(q *computev1.GenerateRequest, head http.Header) (job.Job, error) {
	j := job.Job{Kind: job.Generate, Content: job.Content{Prompt: q.GetPrompt(), System: q.GetSystem()}, Model: q.GetModel()}
	if q.GetPrompt() == "" {
		return nameless(j), job.InvalidField("prompt", "it is empty")
	}
	if err := setAll(&j, "options", samplings(q.GetOptions())); err != nil {
		return nameless(j), err
	}
	if o := q.GetOptions(); o.GetGreedy() {
		if o.GetTemperature() != 0 {
			return nameless(j), job.InvalidField("options.greedy", "there is a temperature too")
		}
		j.Content.Sampling.Temperature = new(float64)
	}
	return finish(j, q.GetAnnotations(), q.GetRequestId(), head)
}

// embedJob returns the job that a request asks for, likewise.
func embedJob(q *computev1.EmbedRequest, head http.Header) (job.Job, error) {
	j := job.Job{Kind: job.Embed, Content: job.Content{Input: []string{q.GetText()}}, Model: q.GetModel()}
	if q.GetText() == "" {
		return nameless(j), job.InvalidField("text", "it is empty")
	}
	return finish(j, q.GetAnnotations(), q.GetRequestId(), head)
}

// finish sets what is to be said of such a job beside its content.
func finish(j job.Job, a *computev1.JobAnnotations, id string, head http.Header) (job.Job, error) {
	if err := setAll(&j, "annotations", annotations(a)); err != nil {
		return nameless(j), err
	}
	if id != "" {
		if err := door.CheckID(id); err != nil {
			return nameless(j), job.InvalidField("request_id", "%v", err)
		}
		j.ID = id
	}
	if err := door.Annotate(&j, head); err != nil {
		return nameless(j), err
	}
	j = nameless(j)
	j.Stream, j.PromptBytes, j.Prompt = j.Kind != job.Embed, j.Content.Bytes(), j.Content.Fingerprint()
	j.Arrived = time.Now()
	return j, nil
}

// nameless returns a job with a name made up, if it has none.
func nameless(j job.Job) job.Job {
	j.ID = cmp.Or(j.ID, rand.Text())
	return j
}

// option is what a field says of a job. Proto3 has no other way not to say it
// than to leave it at its zero.
type option struct {
	key   string
	said  bool
	value any
}

func samplings(o *computev1.GenerationOptions) []option {
	return []option{
		{"max_tokens", o.GetMaxTokens() != 0, o.GetMaxTokens()},
		{"temperature", o.GetTemperature() != 0, o.GetTemperature()},
		{"top_p", o.GetTopP() != 0, o.GetTopP()},
		{"top_k", o.GetTopK() != 0, o.GetTopK()},
		{"stop", len(o.GetStop()) > 0, o.GetStop()},
		{"context_length", o.GetContextLength() != 0, o.GetContextLength()},
	}
}

func annotations(a *computev1.JobAnnotations) []option {
	return []option{
		{"target", a.GetTarget() != "", a.GetTarget()},
		{"class", a.GetClass() != "", a.GetClass()},
		{"preference", a.GetPreference() != "", a.GetPreference()},
		{"latency_critical", a.GetLatencyCritical(), true},
		{"prefer_power_efficiency", a.GetPreferPowerEfficiency(), true},
		{"cache_enabled", a.GetCacheEnabled(), true},
		{"max_latency_ms", a.GetMaxLatencyMs() != 0, a.GetMaxLatencyMs()},
		{"deadline_ms", a.GetDeadlineMs() != 0, a.GetDeadlineMs()},
		{"max_power_watts", a.GetMaxPowerWatts() != 0, a.GetMaxPowerWatts()},
		{"custom", len(a.GetCustom()) > 0, a.GetCustom()},
	}
}

// setAll sets what was said. An error names the field with the message that it
// is in.
func setAll(j *job.Job, message string, options []option) error {
	for _, o := range options {
		if !o.said {
			continue
		}
		var e *job.Error
		if err := j.Set(o.key, o.value); errors.As(err, &e) {
			e.Field = message + "." + e.Field
			return e
		}
	}
	return nil
}
