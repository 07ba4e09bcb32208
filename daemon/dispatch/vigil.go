package dispatch

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
)

// When silence becomes suspicious. Ollama sends headers with the first token,
// so silence alone is no failure: a server is asked for a sign of life after
// firstPing, which it must give within pingPatience, and then ever less often.
const (
	firstPing    = 2 * time.Second
	pingPatience = time.Second
	lastPing     = 30 * time.Second
	// farPatience is that with a server elsewhere, to which a connection takes
	// three times back and forth and a certificate.
	farPatience = 8 * time.Second
)

// limits are how long a server may be silent although it gives signs of life:
// before its answer begins, and between pieces of it; and in what time it must give
// them.
type limits struct{ headers, stream, sign time.Duration }

// vigil watches an attempt for silence, and cancels it with what it finds. A
// job that is never silent for long costs it one timer.
type vigil struct {
	ping   func(context.Context) error
	cancel context.CancelCauseFunc
	limits limits

	// since is when the watch began, by the clock that nobody sets and that
	// stands still while the machine sleeps: a lid closed for the night is no
	// silence.
	since time.Time
	// heardAt is for how long the watch had lasted when the server was last
	// heard of, or paused while the client is being waited for, which is no
	// silence either.
	heardAt atomic.Int64
	begun   atomic.Bool
	// before is how many attempts stand before this one on the same backend,
	// and turnAt when the last of them left, as heardAt. What has moved is told
	// by moved.
	before atomic.Int32
	turnAt atomic.Int64
	moved  chan struct{}
	// gaveUp says, once the watch is over, that it has cancelled the attempt.
	gaveUp bool
	timer  *time.Timer
	over   chan struct{}
}

const paused = -1

// keepVigil begins to watch. End it.
func keepVigil(ctx context.Context, ping func(context.Context) error, l limits, cancel context.CancelCauseFunc) *vigil {
	v := &vigil{ping: ping, cancel: cancel, limits: l, since: time.Now(), moved: make(chan struct{}, 1), over: make(chan struct{})}
	v.timer = time.AfterFunc(firstPing, func() {
		defer close(v.over)
		v.watch(ctx)
	})
	return v
}

// end stops watching. The context must have been cancelled, or the watch will
// be waited for.
func (v *vigil) end() {
	if !v.timer.Stop() {
		<-v.over
	}
}

// heard is called when the server is waited for again.
func (v *vigil) heard() { v.heardAt.Store(int64(time.Since(v.since))) }

// pause is called when the client is waited for.
func (v *vigil) pause() { v.heardAt.Store(paused) }

// quiet returns how long the server has been silent.
func (v *vigil) quiet() time.Duration {
	at := v.heardAt.Load()
	if at == paused {
		return 0
	}
	return time.Since(v.since) - time.Duration(at)
}

// patience returns for how long the server may yet be silent, were it to give
// signs of life. While others are before this attempt it loses none.
func (v *vigil) patience() time.Duration {
	switch quiet := v.quiet(); {
	case v.begun.Load():
		return v.limits.stream - quiet
	case v.before.Load() > 0:
		return v.limits.headers
	default:
		turn := time.Since(v.since) - time.Duration(v.turnAt.Load())
		return v.limits.headers - min(quiet, turn)
	}
}

// watch asks the silent server for signs of life until ctx is done.
func (v *vigil) watch(ctx context.Context) {
	for next := firstPing; ; {
		quiet, patience := v.quiet(), v.patience()
		switch {
		case quiet < firstPing:
			next = firstPing // it has spoken since
		case patience <= 0:
			v.giveUp(job.Errorf(job.BackendFailed, "answers, but has been silent about the job for %.0f s", quiet.Seconds()))
			return
		case quiet >= next:
			if err := v.signOfLife(ctx); err != nil {
				v.giveUp(err)
				return
			}
			next = min(2*next, next+lastPing)
		}
		select {
		case <-ctx.Done():
			return
		case <-v.moved:
		case <-time.After(min(next-v.quiet(), v.patience())):
		}
	}
}

func (v *vigil) giveUp(why error) {
	v.gaveUp = true
	v.cancel(why)
}

// signOfLife asks the server whether it still accepts and answers requests.
func (v *vigil) signOfLife(ctx context.Context) error {
	ping, cancel := context.WithTimeout(ctx, v.limits.sign)
	defer cancel()
	if err := v.ping(ping); err != nil && ctx.Err() == nil {
		return &job.Error{Code: job.BackendFailed, Detail: "gives no sign of life", Err: err}
	}
	return nil
}
