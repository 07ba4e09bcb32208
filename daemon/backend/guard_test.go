package backend_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// streamer runs jobs as a test says.
type streamer func(ctx context.Context, begin func(job.Head) error) error

func (s streamer) Stream(ctx context.Context, _ job.Job, begin func(job.Head) error, _ func(job.Chunk) error) error {
	return s(ctx, begin)
}

func (streamer) Ping(context.Context) error { return nil }

// answering is a server that answers with a status.
func answering(status int) streamer {
	return func(_ context.Context, begin func(job.Head) error) error { return begin(job.Head{Status: status}) }
}

// run runs a job on the first backend, as dispatch does, and tells what came of
// it as dispatch does.
func (r *rig) run(ctx context.Context) error {
	status := 0
	b := r.Wanted(ctx)[0]
	err := b.Server().Stream(ctx, job.Job{Model: "tiny"}, func(h job.Head) error { status = h.Status; return nil }, nil)
	switch {
	case errors.Is(err, job.BackendFailed), errors.Is(err, job.Busy), errors.Is(err, job.ModelNotFound):
		r.Failed(b.ID, err)
	case err == nil && status < 400:
		r.Served(b.ID, "tiny", time.Second, nil)
	}
	return err
}

// state is how the first backend looks to a job.
func (r *rig) state(t *testing.T) job.Candidate {
	t.Helper()
	return r.Wanted(t.Context())[0].Candidate("tiny")
}

var errMemory = &job.Error{Code: job.BackendFailed, Detail: "out of memory", Answer: &job.Answer{Status: 500}}

// openCircuit calls test with a set whose only backend answers and has just
// failed three jobs.
func openCircuit(t *testing.T, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(true))
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		r.Look(t.Context())
		r.fail()
		for range 3 {
			_ = r.run(t.Context())
		}
		test(t, r)
	})
}

// fail has the server answer that it has no memory left.
func (r *rig) fail() {
	r.servers["1"].Streamer = streamer(func(context.Context, func(job.Head) error) error { return errMemory })
}

func TestThreeFailuresOpenTheCircuit(t *testing.T) {
	openCircuit(t, func(t *testing.T, r *rig) {
		c := r.state(t)
		want := "circuit open after 3 failures (last: backend failed: out of memory), tried again in 1 s"
		if c.Healthy || c.Problem != want || c.RetryAfter != time.Second {
			t.Errorf("it is %+v", c)
		}
		time.Sleep(400 * time.Millisecond)
		if c := r.state(t); c.RetryAfter != 600*time.Millisecond || !strings.HasSuffix(c.Problem, "in 1 s") {
			t.Errorf("a while later it is %+v", c)
		}
		// Who decided by an older snapshot is turned away, and goes elsewhere.
		err := r.Current()[0].Server().Stream(t.Context(), job.Job{}, nil, nil)
		var e *job.Error
		if !errors.As(err, &e) || e.Code != job.Busy || e.RetryAfter != 600*time.Millisecond {
			t.Errorf("a job that comes late is told %v", err)
		}
		r.Search(t.Context())
		if c := r.state(t); c.Healthy {
			t.Errorf("a server that answers questions, and no jobs, is %+v", c)
		}
	})
}

func TestCircuitPausesDouble(t *testing.T) {
	openCircuit(t, func(t *testing.T, r *rig) {
		for _, seconds := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			time.Sleep(time.Duration(seconds)*time.Second - 1)
			if c := r.state(t); c.Healthy || c.RetryAfter != 1 {
				t.Fatalf("just before %d s it is %+v", seconds, c)
			}
			time.Sleep(time.Nanosecond)
			if c := r.state(t); !c.Healthy || c.Suspect == "" || c.RetryAfter != 0 {
				t.Fatalf("after %d s it is %+v", seconds, c)
			}
			if err := r.run(t.Context()); !errors.Is(err, job.BackendFailed) {
				t.Fatalf("its trial: %v", err)
			}
		}
		if log := r.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, "circuit open after 3 failures") {
			t.Errorf("it was up, and then down, and the log says:\n%s", log)
		}
	})
}

func TestOneJobAtATimeTriesABackend(t *testing.T) {
	openCircuit(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		r.servers["1"].Streamer = streamer(func(_ context.Context, begin func(job.Head) error) error {
			<-release
			return begin(job.Head{Status: 200})
		})
		time.Sleep(time.Second)
		var jobs sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 50 { // all of which see the same snapshot
			jobs.Go(func() {
				err := r.run(t.Context())
				mu.Lock()
				defer mu.Unlock()
				var e *job.Error
				switch {
				case err == nil:
					codes["served"]++
				case errors.As(err, &e) && e.Code == job.Busy && e.RetryAfter == time.Second:
					codes["busy"]++
				default:
					t.Errorf("a job is told %v", err)
				}
			})
		}
		synctest.Wait()
		c := r.state(t)
		want := "circuit half-open after 3 failures (last: backend failed: out of memory), a job is trying it, tried again in 1 s"
		if c.Healthy || c.Problem != want || c.RetryAfter != time.Second {
			t.Errorf("meanwhile it is %+v", c)
		}
		close(release)
		jobs.Wait()
		if codes["served"] != 1 || codes["busy"] != 49 {
			t.Errorf("of fifty jobs %v", codes)
		}
		if c := r.state(t); !c.Healthy || c.Suspect != "" {
			t.Errorf("after its trial it is %+v", c)
		}
		if log := r.log.String(); strings.Count(log, "\n") != 3 {
			t.Errorf("up, down and up, and the log says:\n%s", log)
		}
	})
}

// Whoever comes between the end of a trial and its being told must not become
// the next.
func TestATrialIsJudgedAtItsEnd(t *testing.T) {
	openCircuit(t, func(t *testing.T, r *rig) {
		time.Sleep(time.Second)
		try := func() error {
			return r.Wanted(t.Context())[0].Server().Stream(t.Context(), job.Job{}, func(job.Head) error { return nil }, nil)
		}
		if err := try(); !errors.Is(err, job.BackendFailed) {
			t.Fatal(err)
		}
		expect(t, r.Current(), "-a")
		r.Failed("a", errMemory)
		time.Sleep(2 * time.Second)
		expect(t, r.Wanted(t.Context()), "+a") // told twice, it is one failure
		r.servers["1"].Streamer = answering(200)
		if err := try(); err != nil {
			t.Fatal(err)
		}
		if b := r.Current()[0]; b.Suspect != "" {
			t.Errorf("after a trial that was served it is %+v", b)
		}
	})
}

func TestATrialWithoutAVerdictIsNone(t *testing.T) {
	for what, s := range map[string]streamer{
		"whose client went": func(ctx context.Context, _ func(job.Head) error) error {
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"that was refused":        answering(400),
		"of a model that is gone": func(context.Context, func(job.Head) error) error { return job.Errorf(job.ModelNotFound, "tiny") },
		"of a busy server":        func(context.Context, func(job.Head) error) error { return job.Errorf(job.Busy, "queue") },
	} {
		openCircuit(t, func(t *testing.T, r *rig) {
			r.servers["1"].Streamer = s
			for range 10 {
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				_ = r.run(ctx)
				cancel()
				if c := r.state(t); !c.Healthy || !strings.HasPrefix(c.Suspect, "circuit half-open after 3 failures") {
					t.Fatalf("after a trial %s it is %+v", what, c)
				}
			}
			r.servers["1"].Streamer = answering(200)
			if err := r.run(t.Context()); err != nil || r.state(t).Suspect != "" {
				t.Errorf("after a trial %s, and another: %v, %+v", what, err, r.state(t))
			}
		})
	}
}

// unloading is a server that lets go of models.
type unloading struct {
	*server
	model string
}

func (u *unloading) Unload(_ context.Context, model string) error {
	u.model = model
	return nil
}

func TestAServerKeepsWhatElseItCanDo(t *testing.T) {
	able, unable := &unloading{server: new(server)}, new(server)
	set := backend.New(func(s backend.Spec) backend.Server {
		if s.ID == "able" {
			return able
		}
		return unable
	}, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(set.Close)
	set.Configure([]backend.Spec{spec("1", configured("able", power.CPU)), spec("2", configured("unable", power.NPU))})
	u, ok := set.Current()[0].Server().(backend.Unloader)
	if !ok || u.Unload(t.Context(), "tiny") != nil || able.model != "tiny" {
		t.Error("a server that can let go of models is not asked to")
	}
	if _, ok := set.Current()[1].Server().(backend.Unloader); ok {
		t.Error("a server that cannot is asked to")
	}
}

func TestServerThatBreaksEveryStreamIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(true))
		r.servers["1"].Streamer = streamer(func(context.Context, func(job.Head) error) error {
			return &job.Error{Code: job.BackendFailed, Err: errRefused}
		})
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		for range 3 {
			r.Look(t.Context()) // which it answers
			time.Sleep(2 * time.Second)
			_ = r.run(t.Context())
		}
		expect(t, r.Search(t.Context()), "-a")
		r.servers["1"].Streamer = answering(200)
		time.Sleep(time.Second)
		if err := r.run(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, r.Current(), "+a")
	})
}
