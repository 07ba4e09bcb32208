package meter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

func TestABackendIsBilledOnceHoweverManyAsk(t *testing.T) {
	for _, domains := range [][]power.Domain{nil, {pkg}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(domains...)
			meter := New(m.options())
			defer meter.Close()
			var open []*Span
			if len(domains) > 0 {
				m.draws("package-0", 4*power.Watt)
				learn(meter)
				m.draws("package-0", 32*power.Watt)
			}
			for range 16 {
				open = append(open, meter.Begin(context.Background(), work(power.CPU)))
			}
			sum := power.Energy(0)
			for i, s := range open { // one after the other, as the server has them wait
				pass(time.Second)
				for range 10 {
					s.Tokens(context.Background(), 1)
					pass(100 * time.Millisecond)
				}
				c := s.End(context.Background(), 0, 0)
				if !near(c.Energy, 56*power.Joule) {
					t.Errorf("with %v job %d is told %v", domains, i, c)
				}
				sum += c.Energy
			}
			if !near(sum, 32*28*power.Joule) {
				t.Errorf("with %v all of them are told %v", domains, sum)
			}
		})
	}
}

func TestWhoWritesMoreTakesMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		a, b := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		for range 100 {
			a.Tokens(context.Background(), 2)
			b.Tokens(context.Background(), 1)
			pass(100 * time.Millisecond)
		}
		first, second := a.End(context.Background(), 0, 0), b.End(context.Background(), 0, 0)
		if !near(first.Energy, 200*power.Joule) || !near(second.Energy, 100*power.Joule) || first.Quality != power.Derived || first.Shared != 2 {
			t.Errorf("%+v and %+v", first, second)
		}
	})
}

// beside has a job stream beside an undivided one, of the same backend unless
// apart, on a machine that draws 30 W more for both. Every second one of them
// ends, or none; the undivided one by ctx.
func beside(ctx context.Context, domains []power.Domain, apart bool, ends ...string) (streaming, undivided power.Cost) {
	m := newMachine(domains...)
	meter := New(m.options())
	defer meter.Close()
	if len(domains) > 0 {
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
	}
	other := work(power.CPU)
	if apart {
		other.Backend = "another"
	}
	s, u := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), other)
	for _, end := range ends {
		for range 10 {
			if s.ended.IsZero() {
				s.Tokens(context.Background(), 1)
			}
			pass(100 * time.Millisecond)
		}
		switch end {
		case "streaming":
			streaming = s.End(context.Background(), 0, 0)
		case "undivided":
			undivided = u.End(ctx, 0, 0)
		}
	}
	return streaming, undivided
}

func TestAnUndividedAnswerBesideAStreamIsNotForNothing(t *testing.T) {
	for _, c := range []struct {
		rule  string
		gone  bool // nobody waits for it
		ends  []string
		check func(s, u power.Cost) bool
	}{
		{
			"it has its part of what the other one was not told yet", false,
			[]string{"", "undivided", "streaming"},
			func(s, u power.Cost) bool {
				return near(u.Energy, 30*power.Joule) && u.Quality == power.Derived && u.Shared == 2 && u.Uncertainty < 0.3 &&
					near(s.Energy, 60*power.Joule) && s.Quality == power.Derived && s.Shared == 2
			},
		},
		{
			"what the other one was told stays, and it is uncertain what it took", false,
			[]string{"", "streaming", "undivided"},
			func(s, u power.Cost) bool {
				return near(s.Energy, 60*power.Joule) && s.Uncertainty > sharingError &&
					near(u.Energy, 30*power.Joule) && u.Quality == power.Derived && u.Uncertainty > 0.9
			},
		},
		{
			"who leaves the line takes nothing from the others, but that is uncertain", true,
			[]string{"", "undivided", "streaming"},
			func(s, u power.Cost) bool {
				return near(s.Energy, 90*power.Joule) && u.Energy == 0 && u.Quality == power.Derived && u.Uncertainty == 1
			},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.gone {
				cancel()
			}
			s, u := beside(ctx, []power.Domain{pkg}, false, c.ends...)
			if !c.check(s, u) {
				t.Errorf("%s: it is told %+v, and the other %+v", c.rule, u, s)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		if s, u := beside(t.Context(), nil, false, "", "undivided", "streaming"); u.Energy != 28*power.Joule || s.Energy != 56*power.Joule {
			t.Errorf("without a sensor it is told %v, and the other %v", u, s)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if s, u := beside(t.Context(), []power.Domain{pkg}, true, "", "undivided", "streaming"); !near(u.Energy, 30*power.Joule) || !near(s.Energy, 60*power.Joule) {
			t.Errorf("on another backend it is told %v, and the other %v", u, s)
		}
	})
}

func TestUndividedAnswersThatEndBeforeOlderOnesAreNotForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		older := meter.Begin(context.Background(), work(power.CPU))
		pass(time.Second)
		a, b := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		pass(3 * time.Second)
		for _, s := range []*Span{a, b} {
			if c := s.End(context.Background(), 0, 0); !near(c.Energy, 30*power.Joule) || c.Quality != power.Derived || c.Shared != 3 {
				t.Errorf("it is told %+v", c)
			}
		}
		if c := older.End(context.Background(), time.Second, 0); !near(c.Energy, 60*power.Joule) || !near(c.Load, 30*power.Joule) {
			t.Errorf("the older one is told %v, of which loading took %v", c, c.Load)
		}
	})
}

func TestAnUndividedAnswerIsCertainOfTheTimeThatItsBackendTells(t *testing.T) {
	for _, c := range []struct {
		rule   string
		worked time.Duration // on the second, as is told at its end
		check  func(first, second power.Cost) bool
	}{
		{
			"it was worked on after the other one", 5 * time.Second,
			func(_, second power.Cost) bool {
				return second.Quality == power.Measured && second.Uncertainty < sharingError
			},
		},
		{
			"it was worked on beside it for a while", 7500 * time.Millisecond,
			func(_, second power.Cost) bool {
				return second.Quality == power.Derived && second.Uncertainty > 0.2 && second.Uncertainty < 0.3
			},
		},
		{
			"it was worked on all the time", 10 * time.Second,
			func(_, second power.Cost) bool { return second.Quality == power.Derived && second.Uncertainty > 0.5 },
		},
		{
			"that is not told", 0,
			func(_, second power.Cost) bool { return second.Quality == power.Derived && second.Uncertainty > 0.5 },
		},
		{
			"what the first was told may be the second's", 10 * time.Second,
			func(first, _ power.Cost) bool { return first.Quality == power.Derived && first.Uncertainty > 0.5 },
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(pkg)
			meter := New(m.options())
			defer meter.Close()
			m.draws("package-0", 4*power.Watt)
			learn(meter)
			m.draws("package-0", 34*power.Watt)
			a, b := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
			pass(5 * time.Second)
			first := a.End(context.Background(), 0, 5*time.Second)
			pass(5 * time.Second)
			second := b.End(context.Background(), 0, c.worked)
			if !near(first.Energy, 150*power.Joule) || !near(second.Energy, 150*power.Joule) || !c.check(first, second) {
				t.Errorf("%s: they are told %+v and %+v", c.rule, first, second)
			}
		})
	}
}

func TestAnUndividedAnswerTakesNothingOfTheTimeBeforeItWasWorkedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		long, short := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		pass(10 * time.Second)
		if c := short.End(context.Background(), 0, 2*time.Second); !near(c.Energy, 30*power.Joule) {
			t.Errorf("it is told %+v", c)
		}
		if c := long.End(context.Background(), 0, 10*time.Second); !near(c.Energy, 270*power.Joule) {
			t.Errorf("the one beside it is told %+v", c)
		}
	})
}

func TestWhoStoodInLineIsCertainOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		first, second := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		first.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		first.End(context.Background(), 0, 0)
		second.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		if c := second.End(context.Background(), 0, 0); !near(c.Energy, 150*power.Joule) || c.Quality != power.Measured || c.Uncertainty >= sharingError {
			t.Errorf("it is told %+v", c)
		}
	})
}

func TestWhoBeginsToWriteClaimsNothingFromBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(pkg)
		meter := New(m.options())
		defer meter.Close()
		m.draws("package-0", 4*power.Watt)
		learn(meter)
		m.draws("package-0", 34*power.Watt)
		first, second := meter.Begin(context.Background(), work(power.CPU)), meter.Begin(context.Background(), work(power.CPU))
		first.Tokens(context.Background(), 1)
		pass(5 * time.Second)
		for _, s := range []*Span{first, second} {
			s.Tokens(context.Background(), 1)
		}
		pass(2 * time.Second)
		for _, s := range []*Span{first, second} {
			s.Tokens(context.Background(), 1)
		}
		if c := second.End(context.Background(), 0, 0); !near(c.Energy, 30*power.Joule) {
			t.Errorf("it is told %+v", c)
		}
		if c := first.End(context.Background(), 0, 0); !near(c.Energy, 180*power.Joule) {
			t.Errorf("the one before it is told %+v", c)
		}
	})
}
