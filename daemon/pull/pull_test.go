package pull_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/daemon/pull"
)

// store is a backend that fetches a model of some bytes, one a second, and keeps
// what has come.
type store struct {
	size int64
	// fails returns how an attempt ends at some byte, or nil.
	fails func(attempt int, at int64) error

	mu sync.Mutex
	figures
}

// figures are what a store has done.
type figures struct {
	attempts, running int
	most              int // at a time
	kept, sent        int64
}

func (s *store) see() figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.figures
}

func (s *store) Pull(ctx context.Context, o pull.Order, each func(pull.Step)) error {
	attempt := s.enter()
	defer s.leave()
	each(pull.Step{Status: "pulling manifest"})
	for {
		kept := s.see().kept
		each(pull.Step{Status: "pulling layer", Digest: "sha256:1", Total: s.size, Completed: kept})
		if kept >= s.size {
			each(pull.Step{Status: "success"})
			return nil
		}
		if s.fails != nil {
			if err := s.fails(attempt, kept); err != nil {
				return err
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
		s.kept++
		s.sent++
		s.mu.Unlock()
	}
}

func (s *store) enter() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
	s.running++
	s.most = max(s.most, s.running)
	return s.attempts
}

func (s *store) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// bench is a puller that runs, in a bubble.
type bench struct {
	*pull.Puller
	conditions latest.Value[pull.Conditions]
	stop       context.CancelFunc
}

func start(t *testing.T, s pull.Source) *bench {
	t.Helper()
	b := new(bench)
	b.Puller = pull.New(pull.Parts{
		Source:     s,
		Conditions: func(ctx context.Context) iter.Seq[pull.Conditions] { return b.conditions.Watch(ctx) },
		Log:        slog.New(slog.DiscardHandler),
	}, pull.Rules{})
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	go func() { _ = b.Run(ctx) }()
	return b
}

func order() pull.Order { return pull.Order{Backend: "ollama-cpu", Model: "tiny"} }

// ask asks for a model, and returns what is said of it.
func (b *bench) ask(ctx context.Context, o pull.Order) (all []pull.Progress, err error) {
	err = b.Pull(ctx, o, func(p pull.Progress) error {
		all = append(all, p)
		return nil
	})
	return all, err
}

func states(all []pull.Progress) (list []pull.State) {
	for _, p := range all {
		list = append(list, p.State)
	}
	return slices.Compact(list)
}

func TestManyWhoAskHaveItFetchedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 60}
		b := start(t, s)
		defer b.stop()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				o := order()
				if i%2 == 1 {
					o.Model = "TINY:latest" // which is the same
				}
				if _, err := b.ask(t.Context(), o); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if s.see().attempts != 1 || s.see().sent != 60 {
			t.Errorf("%d attempts, %d bytes, want 1 and 60", s.see().attempts, s.see().sent)
		}
		if left := b.Current(); len(left) != 0 {
			t.Errorf("left is %+v", left)
		}
	})
}

func TestWhatIsAnotherPullIsFetchedBeside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 9}
		b := start(t, s)
		defer b.stop()
		other, elsewhere := order(), order()
		other.Model, elsewhere.Backend = "large", "ollama-nvidia"
		var all sync.WaitGroup
		for _, o := range []pull.Order{order(), other, elsewhere} {
			all.Go(func() { _, _ = b.ask(t.Context(), o) })
		}
		all.Wait()
		if s.see().attempts != 3 || s.see().most != 3 {
			t.Errorf("%d attempts, %d at a time", s.see().attempts, s.see().most)
		}
	})
}

func TestProgressHasBytesRateAndTimeLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &store{size: 100})
		defer b.stop()
		all, err := b.ask(t.Context(), order())
		if err != nil {
			t.Fatal(err)
		}
		half := all[slices.IndexFunc(all, func(p pull.Progress) bool { return p.Completed == 50 })]
		if half.Total != 100 || half.Percent() != 50 || half.Rate < 0.9 || half.Rate > 1.1 || half.Left.Round(time.Second) != 50*time.Second {
			t.Errorf("half of it is %+v", half)
		}
		if last := all[len(all)-1]; last.State != pull.Done || last.Completed != 100 {
			t.Errorf("the last is %+v", last)
		}
	})
}

func TestCutsAreMended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 100, fails: func(attempt int, at int64) error {
			if at == int64(attempt)*10 {
				return fmt.Errorf("%w: connection reset", pull.ErrCut)
			}
			return nil
		}}
		b := start(t, s)
		defer b.stop()
		began := time.Now()
		all, err := b.ask(t.Context(), order())
		if err != nil {
			t.Fatal(err)
		}
		if s.see().sent != 100 || s.see().attempts != 10 {
			t.Errorf("%d bytes in %d attempts", s.see().sent, s.see().attempts)
		}
		// Each attempt got somewhere, so that each wait is the first.
		if took := time.Since(began); took != 109*time.Second {
			t.Errorf("it took %v", took)
		}
		if !slices.ContainsFunc(all, func(p pull.Progress) bool {
			return p.State == pull.Retrying && strings.Contains(p.Note, "connection reset")
		}) {
			t.Error("nobody was told of a cut")
		}
	})
}

func TestServerThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 100, fails: func(_ int, at int64) error {
			if at == 90 {
				return fmt.Errorf("%w: connection refused", pull.ErrCut)
			}
			return nil
		}}
		b := start(t, s)
		defer b.stop()
		_, err := b.ask(t.Context(), order())
		var e *job.Error
		if !errors.As(err, &e) || e.Code != job.BackendFailed || !strings.Contains(err.Error(), "at 90 % of tiny") || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		if s.see().attempts != 6 {
			t.Errorf("%d attempts, want 6", s.see().attempts)
		}
	})
}

func TestWhatTheBackendSaysAtOnceIsBelieved(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		at       int64
		attempts int
	}{
		"before the first byte": {0, 1},
		"after some":            {90, 2}, // the network may be back, and then it says it again
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{size: 100, fails: func(_ int, at int64) error {
					if at == tt.at {
						return job.Errorf(job.BackendFailed, "403: denied")
					}
					return nil
				}}
				b := start(t, s)
				defer b.stop()
				_, err := b.ask(t.Context(), order())
				if !errors.Is(err, job.BackendFailed) || s.see().attempts != tt.attempts {
					t.Errorf("%v after %d attempts, want %d", err, s.see().attempts, tt.attempts)
				}
			})
		})
	}
}

func TestNothingIsFetchedUnderConditionsThatForbidIt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		conditions pull.Conditions
		rules      pull.Rules
		anyway     bool
		refused    string // "" if it is fetched
	}{
		"line power":                  {},
		"battery":                     {conditions: pull.Conditions{OnBattery: true}, refused: "on battery"},
		"battery, and told to anyway": {conditions: pull.Conditions{OnBattery: true}, anyway: true},
		"battery, by configuration":   {conditions: pull.Conditions{OnBattery: true}, rules: pull.Rules{OnBattery: true}},
		"metered":                     {conditions: pull.Conditions{Network: pull.Metered}, refused: "metered"},
		"a network that nobody knows": {conditions: pull.Conditions{Network: pull.Unknown}},
		"metered, by configuration":   {conditions: pull.Conditions{Network: pull.Metered}, rules: pull.Rules{OnMetered: true}},
		"both, and one is allowed":    {conditions: pull.Conditions{OnBattery: true, Network: pull.Metered}, rules: pull.Rules{OnBattery: true}, refused: "metered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{size: 3}
				b := start(t, s)
				defer b.stop()
				b.conditions.Publish(tt.conditions)
				b.Configure(tt.rules)
				o := order()
				o.Anyway = tt.anyway
				_, err := b.ask(t.Context(), o)
				switch {
				case tt.refused == "" && (err != nil || s.see().sent != 3):
					t.Errorf("%v, %d bytes", err, s.see().sent)
				case tt.refused != "" && (!errors.Is(err, job.PowerPolicy) || !strings.Contains(err.Error(), tt.refused) || s.see().attempts != 0):
					t.Errorf("%v, %d attempts", err, s.see().attempts)
				}
			})
		})
	}
}

func TestWhatAClientMayHaveFetched(t *testing.T) {
	t.Parallel()
	rules := pull.Rules{Registries: []string{"hf.co", "box.lan:5000"}}
	for name, tt := range map[string]struct {
		order  pull.Order
		refuse string // "" if it is fetched
	}{
		"a model":                            {order: pull.Order{Model: "tiny"}},
		"somebody's":                         {order: pull.Order{Model: "somebody/tiny:1b"}},
		"by the registry's name":             {order: pull.Order{Model: "https://registry.ollama.ai/library/tiny"}},
		"from a registry that is named":      {order: pull.Order{Model: "HF.co/somebody/tiny:Q4"}},
		"from a port that is":                {order: pull.Order{Model: "box.lan:5000/somebody/tiny"}},
		"from another port":                  {order: pull.Order{Model: "box.lan:22/somebody/tiny"}, refuse: "box.lan:22"},
		"from the router":                    {order: pull.Order{Model: "192.168.1.1/x/y"}, refuse: "192.168.1.1"},
		"without TLS":                        {order: pull.Order{Model: "http://192.168.1.1/x/y"}, refuse: "192.168.1.1"},
		"from this machine":                  {order: pull.Order{Model: "[::1]:8080/x/y:z"}, refuse: "[::1]:8080"},
		"from further down":                  {order: pull.Order{Model: "evil.example/a/b/c"}, refuse: "evil.example"},
		"insecurely":                         {order: pull.Order{Model: "tiny", Insecure: true}, refuse: "insecure"},
		"on battery, whatever the user says": {order: pull.Order{Model: "tiny", Anyway: true}, refuse: "anyway"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{size: 3}
				b := start(t, s)
				defer b.stop()
				b.Configure(rules)
				o := tt.order
				o.ByClient = true
				_, err := b.ask(t.Context(), o)
				if tt.refuse == "" && err != nil || tt.refuse != "" && (!errors.Is(err, job.Forbidden) || !strings.Contains(err.Error(), tt.refuse) || s.see().attempts != 0) {
					t.Errorf("a client gets %v after %d attempts", err, s.see().attempts)
				}
				if _, err := b.ask(t.Context(), tt.order); err != nil {
					t.Errorf("the user gets %v", err)
				}
			})
		})
	}
}

func TestPullPausesWhileItMayNotGoOn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]func(b *bench){
		"until line power is back": func(b *bench) { b.conditions.Publish(pull.Conditions{}) },
		"until the rules change":   func(b *bench) { b.Configure(pull.Rules{OnBattery: true}) },
		"until somebody asks for it anyway": func(b *bench) {
			o := order()
			o.Anyway = true
			go func() { _, _ = b.ask(context.Background(), o) }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{size: 20}
				b := start(t, s)
				defer b.stop()
				var all []pull.Progress
				done := make(chan error)
				go func() {
					var err error
					all, err = b.ask(t.Context(), order())
					done <- err
				}()
				time.Sleep(10500 * time.Millisecond)
				b.conditions.Publish(pull.Conditions{OnBattery: true})
				time.Sleep(time.Hour)
				if s.see().running != 0 || s.see().sent != 10 {
					t.Errorf("on battery %d run, %d bytes came", s.see().running, s.see().sent)
				}
				tt(b)
				if err := <-done; err != nil || s.see().sent != 20 || s.see().attempts != 2 {
					t.Errorf("%v, %d bytes in %d attempts", err, s.see().sent, s.see().attempts)
				}
				want := []pull.State{pull.Starting, pull.Pulling, pull.Paused, pull.Pulling, pull.Done}
				if got := states(all); !slices.Equal(got, want) {
					t.Errorf("it was %v, want %v", got, want)
				}
			})
		})
	}
}

func TestPullEndsWithTheLastWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 1000}
		b := start(t, s)
		defer b.stop()
		var left []context.CancelFunc
		for range 2 {
			ctx, leave := context.WithCancel(t.Context())
			left = append(left, leave)
			go func() { _, _ = b.ask(ctx, order()) }()
		}
		time.Sleep(10 * time.Second)
		left[0]()
		time.Sleep(10*time.Second + time.Millisecond)
		if s.see().running != 1 {
			t.Fatal("it ended, and one still waits for it")
		}
		left[1]()
		synctest.Wait()
		if s.see().running != 0 {
			t.Error("it goes on, and nobody waits for it")
		}
		kept := s.see().sent
		if _, err := b.ask(t.Context(), order()); err != nil || s.see().sent != 1000 {
			t.Errorf("asked again: %v, %d bytes, after %d", err, s.see().sent, kept)
		}
	})
}

func TestPullsEndWhenToldTo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(b *bench)
		code job.Code
	}{
		"by a user":        {func(b *bench) { b.Cancel("tiny:latest") }, job.Cancelled},
		"with the daemon":  {func(b *bench) { b.stop() }, job.Stopping},
		"while it retries": {func(b *bench) { time.Sleep(30 * time.Second); b.Cancel("tiny") }, job.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &store{size: 1000, fails: func(attempt int, at int64) error {
					if at >= 20 {
						return pull.ErrCut
					}
					return nil
				}}
				b := start(t, s)
				defer b.stop()
				done := make(chan error)
				go func() {
					_, err := b.ask(t.Context(), order())
					done <- err
				}()
				time.Sleep(10 * time.Second)
				if b.Cancel("another") {
					t.Error("another was ended")
				}
				tt.end(b)
				if err := <-done; !errors.Is(err, tt.code) {
					t.Errorf("got %v, want %v", err, tt.code)
				}
			})
		})
	}
}

func TestAfterTheDaemonHasEndedNothingIsFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{size: 3}
		b := start(t, s)
		b.stop()
		synctest.Wait()
		if _, err := b.ask(t.Context(), order()); !errors.Is(err, job.Stopping) || s.see().attempts != 0 {
			t.Errorf("got %v", err)
		}
	})
}

// Whatever happens on the way: no byte is fetched twice, nothing is fetched while
// it may not be, progress never goes back, and a pull that ends well is whole.
func TestLaw(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			s := &store{size: 50, fails: func(int, int64) error {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case random.IntN(12) == 0:
					return pull.ErrCut
				case random.IntN(200) == 0:
					return job.Errorf(job.BackendFailed, "500: no")
				}
				return nil
			}}
			b := start(t, s)
			defer b.stop()
			var end sync.WaitGroup
			weather := rand.New(rand.NewPCG(seed, 2))
			ctx, stop := context.WithCancel(t.Context())
			end.Go(func() {
				for ctx.Err() == nil {
					forbidden := weather.IntN(4) == 0
					b.conditions.Publish(pull.Conditions{OnBattery: forbidden})
					synctest.Wait()
					before, at := s.see().sent, s.see().running
					if forbidden && at != 0 {
						t.Errorf("seed %d: %d run on battery", seed, at)
					}
					time.Sleep(time.Duration(1+weather.IntN(20)) * time.Second)
					if forbidden && s.see().sent != before {
						t.Errorf("seed %d: bytes came on battery", seed)
					}
				}
			})
			var asked sync.WaitGroup
			for range 3 {
				asked.Go(func() {
					last := int64(0)
					err := b.Pull(t.Context(), order(), func(p pull.Progress) error {
						if p.Completed < last {
							t.Errorf("seed %d: it had %d, and now %d", seed, last, p.Completed)
						}
						last = p.Completed
						return nil
					})
					if err == nil && last != 50 {
						t.Errorf("seed %d: it ended well with %d bytes", seed, last)
					}
				})
			}
			asked.Wait()
			stop()
			end.Wait()
			if s.see().sent != s.see().kept || s.see().most > 1 {
				t.Errorf("seed %d: %d bytes for %d, %d at a time", seed, s.see().sent, s.see().kept, s.see().most)
			}
		})
	}
}
