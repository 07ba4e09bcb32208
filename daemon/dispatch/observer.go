package dispatch

import (
	"errors"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/ledger"
)

// Observer is told what comes of jobs, once it has come. It must not make the
// job wait. *metrics.Metrics is one.
type Observer interface {
	// Attempted is told of an attempt what the ledger is.
	Attempted(*ledger.Entry)
	// Ended is told of every job, once.
	Ended(*End)
	// Unloaded is told that a backend let go of a model when it was asked to.
	Unloaded(backend string)
}

// End is how a job ended.
type End struct {
	Kind  job.Kind
	Class job.Class
	// Backend and Model are those of the last attempt, and "" if there was
	// none: whatever else the client named may be anything. The backend is
	// ledger.Cache of a job that got, or waited for, the answer to another.
	Backend, Model string
	// Code is why there is no whole answer, or "".
	Code job.Code
	// Queued is for how long the job waited for its first attempt, if there
	// was one.
	Queued time.Duration
	// Report is what there is to say of a whole answer, and nil of another.
	Report *Report
	// Fallbacks are the attempts after which there was another.
	Fallbacks []Failure
}

// Code returns why an attempt failed.
func (f Failure) Code() job.Code {
	var e *job.Error
	if errors.As(f.Err, &e) {
		return e.Code
	}
	return job.BackendFailed
}

// observed tells the observer how the job ended. One that was ended by a panic
// has no answer that could be delivered.
func (r *run) observed() {
	e := End{Kind: r.job.Kind, Class: r.job.Class, Code: r.code}
	if !r.over {
		e.Code = job.Cancelled
	}
	if e.Code == "" {
		e.Report = r.told
	}
	if r.attempts > 0 {
		e.Backend, e.Model, e.Queued = r.decision.Backend, job.CanonicalModel(r.job.Model), r.queued
		e.Fallbacks = r.failures[:min(len(r.failures), r.attempts-1)]
	}
	if r.decision.Borrowed != "" {
		e.Backend, e.Model = ledger.Cache, job.CanonicalModel(r.job.Model)
	}
	r.Observer.Ended(&e)
}

// nobody is an observer whom nothing interests.
type nobody struct{}

func (nobody) Attempted(*ledger.Entry) {}
func (nobody) Ended(*End)              {}
func (nobody) Unloaded(string)         {}
