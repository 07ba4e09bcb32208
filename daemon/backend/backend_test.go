package backend_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// server is a backend's server in memory, with what it says scripted.
type server struct {
	backend.Streamer
	mu     sync.Mutex
	facts  job.Facts
	err    error
	delay  time.Duration
	probes int
	closes atomic.Int32
}

func (s *server) Probe(ctx context.Context) (job.Facts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probes++
	select {
	case <-time.After(s.delay):
		return s.facts, s.err
	case <-ctx.Done():
		return job.Facts{}, ctx.Err()
	}
}

// say has the server be up.
func (s *server) say(facts job.Facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts, s.err = facts, nil
}

func (s *server) probed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes
}

func (s *server) Do(*http.Request) (*http.Response, error) { return nil, errors.New("not asked for") }
func (s *server) Close()                                   { s.closes.Add(1) }

var errRefused = errors.New("connection refused")

func tiny(resident bool) job.Facts {
	return job.Facts{Version: "0.17.4", Models: []job.Model{{Name: "tiny:latest", Size: 1e9, Resident: resident}}}
}

// rig is a set over scripted servers by port.
type rig struct {
	*backend.Set
	servers map[string]*server
	classes map[string]power.DeviceClass
	log     *bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{servers: map[string]*server{}, classes: map[string]power.DeviceClass{}, log: new(bytes.Buffer)}
	for _, port := range []string{"1", "2", "3"} {
		r.servers[port] = &server{err: errRefused}
	}
	r.Set = backend.New(
		func(s backend.Spec) backend.Server { return r.servers[s.Endpoint.Port()] },
		func(s backend.Spec, _ job.Facts) power.DeviceClass {
			if c, ok := r.classes[s.Endpoint.Port()]; ok {
				return c
			}
			return power.Unclassified
		},
		slog.New(slog.NewTextHandler(r.log, nil)),
	)
	t.Cleanup(r.Close)
	return r
}

func spec(port string, change func(*backend.Spec)) backend.Spec {
	s := backend.Spec{Type: "ollama", Class: power.Unclassified, Endpoint: url.URL{Scheme: "http", Host: "127.0.0.1:" + port}, Found: true}
	if change != nil {
		change(&s)
	}
	return s
}

func configured(id string, class power.DeviceClass) func(*backend.Spec) {
	return func(s *backend.Spec) { s.ID, s.Class, s.Found = id, class, false }
}

func ids(s backend.Snapshot) (list []string) {
	for _, b := range s {
		health := "+"
		if !b.Healthy {
			health = "-"
		}
		list = append(list, health+b.ID)
	}
	return list
}

func expect(t *testing.T, got backend.Snapshot, want ...string) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Errorf("backends are %v, want %v", ids(got), want)
	}
}

func TestFoundServersAreNamedAfterTheirClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.servers["3"].say(tiny(true))
		r.classes["3"] = power.CPU
		r.Configure([]backend.Spec{spec("1", nil), spec("2", nil), spec("3", nil)})
		expect(t, r.Look(t.Context()), "+ollama-1", "+ollama-cpu")

		r.classes["1"] = power.CPU // it has loaded something since
		time.Sleep(time.Minute)
		now := r.Look(t.Context())
		expect(t, now, "+ollama-cpu-1", "+ollama-cpu")
		if b := now.Find("ollama-1"); b == nil || b.ID != "ollama-cpu-1" {
			t.Errorf("the old id finds %+v", b)
		}

		r.classes["1"] = power.Unclassified // nothing resident tells any more
		time.Sleep(time.Minute)
		expect(t, r.Look(t.Context()), "+ollama-cpu-1", "+ollama-cpu")

		r.classes["1"] = power.IntegratedGPU // and now something else does
		time.Sleep(time.Minute)
		now = r.Look(t.Context())
		expect(t, now, "+ollama-igpu", "+ollama-cpu")
		if b := now.Find("ollama-cpu-1"); b == nil || b.ID != "ollama-igpu" {
			t.Errorf("who waits for it by the id before finds %+v", b)
		}
	})
}

func TestConfiguredBackendIsShownThoughItIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Configure([]backend.Spec{spec("1", configured("ollama-npu", power.NPU)), spec("2", nil)})
		now := r.Look(t.Context())
		expect(t, now, "-ollama-npu")
		if b := now[0]; b.Problem != "connection refused" || b.Profile.Draw != 3*power.Watt || b.Profile.Quality != power.Estimated {
			t.Errorf("it is %+v", b)
		}
	})
}

func TestConfiguredFiguresStandOverPriors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Configure([]backend.Spec{spec("1", func(s *backend.Spec) {
			configured("a", power.NVIDIA)(s)
			s.Profile = job.Profile{Draw: 80 * power.Watt, Decode: 100, HoldDraw: 6 * power.Watt}
		})})
		p := r.Current()[0].Profile
		if p.Draw != 80*power.Watt || p.Decode != 100 || p.Prefill != 1000 || p.FirstToken != 150*time.Millisecond || p.HoldDraw != 6*power.Watt {
			t.Errorf("profile is %+v", p)
		}
	})
}

func TestSlotsAreWhatTheUserSaysOrTheServer(t *testing.T) {
	for _, c := range []struct{ configured, told, want int }{{0, 0, 1}, {0, 4, 4}, {8, 4, 8}, {8, 0, 8}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			facts := tiny(true)
			facts.Slots = c.told
			r.servers["1"].say(facts)
			r.Configure([]backend.Spec{spec("1", func(s *backend.Spec) { s.Slots = c.configured })})
			if got := r.Look(t.Context()).Candidates("tiny")[0].Slots; got != c.want {
				t.Errorf("configured %d, told %d: there are %d", c.configured, c.told, got)
			}
		})
	}
}

func TestJoulemuxIsNoBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, port := range []string{"1", "2"} {
			r.servers[port].say(job.Facts{Version: "1", Instance: "abc"})
		}
		r.Configure([]backend.Spec{spec("1", nil), spec("2", configured("loop", power.CPU))})
		now := r.Look(t.Context())
		expect(t, now, "-loop")
		if now[0].Problem != "it is a joulemux, and no backend" {
			t.Errorf("problem is %q", now[0].Problem)
		}
	})
}

func TestNothingIsProbedAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", nil), spec("2", configured("down", power.CPU))})
		r.Look(t.Context())
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if a, b := r.servers["1"].probed(), r.servers["2"].probed(); a != 1 || b != 1 {
			t.Errorf("a day of rest made %d and %d probes, want the first look's", a, b)
		}
	})
}

func TestJobsProbeWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("up", power.CPU)), spec("2", configured("down", power.NPU))})
		for range 600 { // ten minutes of a job a second
			r.Wanted(t.Context())
			time.Sleep(time.Second)
		}
		synctest.Wait()
		// 600 s / 10 s, and 1+2+4+8+16+32 s, then one a minute.
		if n := r.servers["1"].probed(); n < 55 || n > 61 {
			t.Errorf("the healthy one was probed %d times, want about 60", n)
		}
		if n := r.servers["2"].probed(); n < 14 || n > 17 {
			t.Errorf("the one that is down was probed %d times, want about 15", n)
		}
		r.servers["2"].say(tiny(false))
		time.Sleep(time.Minute)
		expect(t, r.Wanted(t.Context()), "+up", "+down")
		if log := r.log.String(); strings.Count(log, "\n") != 2 {
			t.Errorf("ten minutes with two changes logged:\n%s", log)
		}
	})
}

func TestSearchIgnoresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		for range 100 {
			r.Wanted(t.Context())
			time.Sleep(time.Second)
		}
		r.servers["1"].say(tiny(false))
		expect(t, r.Wanted(t.Context()), "-a")
		expect(t, r.Search(t.Context()), "+a")
		before := r.servers["1"].probed()
		for range 100 {
			r.Search(t.Context())
		}
		if n := r.servers["1"].probed(); n != before {
			t.Errorf("a hundred searches at once made %d probes more", n-before)
		}
	})
}

func TestSearchAsksAgainWhoHasJustFailedAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		r.Look(t.Context())
		time.Sleep(time.Second)
		r.Failed("a", &job.Error{Code: job.BackendFailed, Err: io.ErrUnexpectedEOF})
		expect(t, r.Wanted(t.Context()), "-a")
		expect(t, r.Search(t.Context()), "+a")
	})
}

func TestFrozenServerDoesNotHoldUpJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].delay = time.Hour
		r.servers["2"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("frozen", power.NPU)), spec("2", configured("b", power.CPU))})
		start := time.Now()
		expect(t, r.Wanted(t.Context()), "-frozen", "+b")
		if waited := time.Since(start); waited > 200*time.Millisecond {
			t.Errorf("a job waited %v", waited)
		}
		start = time.Now()
		r.Look(t.Context())
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("a look took %v", waited)
		}
		time.Sleep(5 * time.Second) // the probe gives up
	})
}

func TestFailuresAreLearned(t *testing.T) {
	unreachable := &job.Error{Code: job.BackendFailed, Err: errRefused}
	bad := &job.Error{Code: job.BackendFailed, Detail: "out of memory", Answer: &job.Answer{Status: 500}}
	for _, c := range []struct {
		what             string
		err              error
		healthy, suspect bool
	}{
		{"unreachable", unreachable, false, false},
		{"a bad answer", bad, true, true},
		{"an early end", job.Errorf(job.BackendFailed, "its stream ended"), true, true},
		{"merely busy", job.Errorf(job.Busy, "queue"), true, false},
		{"without the model", job.Errorf(job.ModelNotFound, "m"), true, false},
		{"given a bad request", job.Errorf(job.Invalid, "m"), true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.servers["1"].say(tiny(false))
			r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
			r.Look(t.Context())
			r.Failed("a", c.err)
			b := r.Current()[0]
			if b.Healthy != c.healthy || (b.Suspect != "") != c.suspect {
				t.Errorf("%s: %+v", c.what, b)
			}
			time.Sleep(2 * time.Second)
			if b := r.Wanted(t.Context())[0]; !b.Healthy || b.Suspect != "" {
				t.Errorf("%s, and an answer since: %+v", c.what, b)
			}
		})
	}
}

func TestServedModelsAreResident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		before := r.Look(t.Context())
		r.Served("a", "tiny", time.Second, nil)
		if before[0].Model("tiny").Resident {
			t.Error("an old snapshot has changed")
		}
		if !r.Current()[0].Model("tiny").Resident {
			t.Error("a model that has just answered is not resident")
		}
		time.Sleep(time.Hour) // unloaded, and nobody told us
		if r.Wanted(t.Context())[0].Model("tiny").Resident {
			t.Error("an hour later a job still believes it resident")
		}
	})
}

func TestWhatIsLearnedUnderAFormerIDIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", nil), spec("2", nil)})
		for _, c := range []struct {
			class power.DeviceClass
			id    string // by then
		}{{power.Unclassified, "ollama-1"}, {power.CPU, "ollama-cpu"}, {power.IntegratedGPU, "ollama-igpu"}} {
			r.classes["1"] = c.class
			time.Sleep(time.Minute)
			expect(t, r.Look(t.Context()), "+"+c.id)
			r.Served("ollama-1", "tiny", time.Second, nil)
			if m := r.Metrics(c.id); m.PerMinute != 1 || m.FirstToken.Round(time.Millisecond) != time.Second {
				t.Errorf("as %s: %+v", c.id, m)
			}
		}
		r.Failed("ollama-cpu", job.Errorf(job.BackendFailed, "out of memory"))
		if b := r.Current()[0]; b.Suspect == "" || r.Metrics("ollama-igpu").ErrorRate != 0.5 {
			t.Errorf("after a failure it is %+v", b)
		}
		// Who has the id now is meant, whoever had it before.
		r.servers["2"].say(tiny(false))
		r.classes["2"] = power.CPU
		time.Sleep(time.Minute)
		expect(t, r.Look(t.Context()), "+ollama-igpu", "+ollama-cpu")
		r.Served("ollama-cpu", "tiny", time.Second, nil)
		if m := r.Metrics("ollama-cpu"); m.PerMinute != 1 {
			t.Errorf("the other one has %+v", m)
		}
	})
}

func TestAModelThatGoesIsLookedForAgain(t *testing.T) {
	goes := func(after time.Duration) job.Facts {
		facts := tiny(true)
		facts.Models[0].Until = time.Now().Add(after)
		return facts
	}
	for _, c := range []struct {
		rule   string
		until  time.Duration  // as the server says
		stays  *time.Duration // as it was told with a job that has ended
		after  time.Duration
		probes int
	}{
		{"what is to stay is not asked for at once", time.Minute, nil, 8 * time.Second, 1},
		{"what was to go is", 7 * time.Second, nil, 8 * time.Second, 2},
		{"but not before", 7 * time.Second, nil, 6 * time.Second, 1},
		{"what has gone long ago is not", -time.Minute, nil, 8 * time.Second, 1},
		{"nor what stays for ever", time.Minute, new(-time.Second), 8 * time.Second, 1},
		{"what was told to go at once is", time.Minute, new(time.Duration(0)), time.Second, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.servers["1"].say(goes(c.until))
			r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
			r.Look(t.Context())
			if c.stays != nil {
				r.Served("a", "tiny", time.Second, c.stays)
			}
			time.Sleep(c.after)
			r.Wanted(t.Context())
			if n := r.servers["1"].probed(); n != c.probes {
				t.Errorf("%s: after %v it was asked %d times", c.rule, c.after, n)
			}
		})
	}
}

func TestMetricsAreReal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		r.Look(t.Context())
		r.Served("a", "tiny", 100*time.Millisecond, nil)
		r.Served("a", "tiny", 300*time.Millisecond, nil)
		r.Failed("a", job.Errorf(job.BackendFailed, "boom"))
		r.Failed("a", job.Errorf(job.Busy, "queue"))
		if m := r.Metrics("a"); m != (backend.Metrics{FirstToken: 200 * time.Millisecond, PerMinute: 4, ErrorRate: 0.5}) {
			t.Errorf("metrics are %+v", m)
		}
		time.Sleep(time.Minute)
		if m := r.Metrics("a"); m.PerMinute != 0 || m.ErrorRate != 0 {
			t.Errorf("a minute later they are %+v", m)
		}
	})
}

func TestReconfiguringKeepsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(true))
		r.servers["2"].say(tiny(true))
		a, b := spec("1", configured("a", power.CPU)), spec("2", configured("b", power.NPU))
		r.Configure([]backend.Spec{a})
		r.Look(t.Context())
		r.Configure([]backend.Spec{b, a})
		expect(t, r.Current(), "-b", "+a")
		if n := r.servers["1"].probed(); n != 1 {
			t.Errorf("a was probed %d times", n)
		}
		expect(t, r.Look(t.Context()), "+b", "+a")
	})
}

func TestModelsAreListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(job.Facts{Models: []job.Model{{Name: "b"}, {Name: "a:1b"}}})
		r.servers["2"].say(job.Facts{Models: []job.Model{{Name: "b:latest"}, {Name: "c"}}})
		r.Configure([]backend.Spec{spec("1", configured("x", power.CPU)), spec("2", configured("y", power.NPU))})
		if got := r.Look(t.Context()).Models(); !slices.Equal(got, []string{"b", "a:1b", "c"}) {
			t.Errorf("models are %v", got)
		}
	})
}

func TestNoTwoBackendsHaveOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(true))
		r.servers["2"].say(tiny(true))
		r.classes["1"] = power.CPU
		r.Configure([]backend.Spec{spec("1", nil)})
		expect(t, r.Look(t.Context()), "+ollama-cpu")
		r.Configure([]backend.Spec{spec("2", configured("ollama-cpu", power.CPU)), spec("1", nil)})
		expect(t, r.Look(t.Context()), "+ollama-cpu", "+ollama-cpu-1")
	})
}

func TestOneOutageIsOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		r.Look(t.Context())
		for range 50 { // jobs that were under way when the server was restarted
			r.Failed("a", &job.Error{Code: job.BackendFailed, Err: errRefused})
		}
		expect(t, r.Current(), "-a")
		time.Sleep(time.Second)
		expect(t, r.Wanted(t.Context()), "+a")
	})
}

func TestOutageThatIsOverDoesNotLengthenTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		for range 600 {
			r.Wanted(t.Context())
			time.Sleep(time.Second)
		}
		r.servers["1"].say(tiny(false))
		expect(t, r.Search(t.Context()), "+a")
		r.Failed("a", &job.Error{Code: job.BackendFailed, Err: errRefused})
		time.Sleep(time.Second)
		expect(t, r.Wanted(t.Context()), "+a")
	})
}

func TestCloseDoesNotWaitForAFrozenServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.Configure([]backend.Spec{spec("1", configured("frozen", power.CPU))})
		r.Look(t.Context())
		r.servers["1"].delay = time.Hour
		time.Sleep(time.Minute)
		r.Wanted(t.Context())
		start := time.Now()
		r.Close()
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %v", took)
		}
		if log := r.log.String(); strings.Contains(log, "down") {
			t.Errorf("it logged %s", log)
		}
	})
}

func TestProbeOfABackendThatWentLeavesNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.servers["1"].say(tiny(false))
		r.servers["1"].delay = time.Second
		r.Configure([]backend.Spec{spec("1", configured("a", power.CPU))})
		r.Wanted(t.Context()) // has it asked
		r.Configure(nil)
		before := r.servers["1"].closes.Load() // what the probe still opens is not among it
		time.Sleep(time.Second)
		synctest.Wait()
		if n := r.servers["1"].closes.Load(); n != before+1 {
			t.Errorf("after the probe its connections were closed %d times", n-before)
		}
	})
}
