package meter

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// scene is a random sequence of jobs on a machine, and of what goes wrong with
// its counters. Equal seeds give equal scenes.
type scene struct {
	*machine
	r     *rand.Rand
	meter *Meter
	open  []*Span
	done  []*Span
	told  []power.Energy // of each domain, at the end of each job
	calm  bool           // nothing goes wrong
	gpu   power.Power    // drawn by the discrete GPU without jobs
}

func play(seed uint64, steps int, ticks time.Duration, calm bool) *scene {
	s := &scene{machine: newMachine(pkg, npu, dgpu), r: rand.New(rand.NewPCG(seed, 1)), calm: calm}
	if seed%2 > 0 {
		s.gpu = 12 * power.Watt
	}
	s.meter = New(s.options())
	s.meter.tick, s.meter.fresh = ticks, 0
	s.load()
	s.meter.Start(context.Background())
	for range steps {
		s.step()
	}
	for len(s.open) > 0 {
		s.end()
	}
	pass(time.Minute)                                                // the tail, and a pause
	for _, c := range []power.DeviceClass{power.NVIDIA, power.NPU} { // all that was counted is divided
		s.meter.Begin(context.Background(), work(c)).End(context.Background(), 0, 0)
	}
	s.meter.Close()
	return s
}

func (s *scene) step() {
	switch n := s.r.IntN(20); {
	case n < 5:
		all := []power.DeviceClass{power.CPU, power.IntegratedGPU, power.NPU, power.NVIDIA, power.Cloud}
		s.open = append(s.open, s.meter.Begin(context.Background(), work(all[s.r.IntN(len(all))])))
		s.wake()
		s.load()
	case n < 9 && len(s.open) > 0:
		s.end()
	case n < 14 && len(s.open) > 0:
		s.open[s.r.IntN(len(s.open))].Tokens(context.Background(), 1+s.r.IntN(40))
	case n == 14 && !s.calm:
		s.mishap()
	case n == 15:
		s.adopt()
	default:
		pass(time.Duration(s.r.Int64N(int64(5 * time.Second))))
	}
}

func (s *scene) end() {
	i := s.r.IntN(len(s.open))
	ctx, cancel := context.WithCancel(context.Background())
	if s.r.IntN(4) == 0 {
		cancel() // nobody waits for the answer
	}
	s.open[i].End(ctx, time.Duration(s.r.Int64N(int64(time.Second))), time.Duration(s.r.Int64N(int64(time.Minute))))
	cancel()
	s.done = append(s.done, s.open[i])
	for _, p := range s.open[i].parts {
		s.told = append(s.told, p.energy)
	}
	s.open = slices.Delete(s.open, i, i+1)
	s.load()
}

// adopt has sensors come and go, as when a driver is loaded, or found once more.
func (s *scene) adopt() {
	list := s.options().Sensors
	if !s.calm {
		s.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:s.r.IntN(len(list)+1)]
	}
	s.meter.Adopt(context.Background(), list)
}

// load sets the draws that go with the open jobs.
func (s *scene) load() {
	sum, rail, gpu := 4*power.Watt, power.Power(0), s.gpu
	for _, j := range s.open {
		switch j.work.Class {
		case power.NVIDIA:
			gpu, sum = 60*power.Watt, sum+power.Watt
		case power.NPU:
			rail, sum = rail+2*power.Watt, sum+3*power.Watt
		case power.Cloud:
		default:
			sum += j.work.Draw / 4
		}
	}
	sum = min(sum, pkg.Most*9/10)
	s.draws("package-0", sum)
	s.draws("npu", min(rail, sum))
	s.draws("gpu", gpu)
}

// mishap is one of the things that make a span a gap.
func (s *scene) mishap() {
	r := s.rails[[]string{"package-0", "npu", "gpu"}[s.r.IntN(3)]]
	what := s.r.IntN(6)
	if what == 1 { // long enough for a wrap, or several
		pass(time.Duration(s.r.IntN(3)) * time.Hour)
		return
	}
	whole := r.total()
	s.Lock()
	defer s.Unlock()
	switch what {
	case 0: // the counter starts again, as with a reload of its driver
		r.offset = -float64(whole)
	case 2: // what is counted meanwhile is nobody's
		s.suspended += time.Second + time.Duration(s.r.IntN(100))*time.Minute
		for _, r := range s.rails {
			r.offset += s.r.Float64() * float64(20*power.Joule)
		}
	case 3:
		r.broken = !r.broken
	case 5: // asleep, until somebody uses it
		r.asleep = r.domain.Scope == power.ScopeDiscreteGPU && !s.uses(power.NVIDIA)
	case 4: // a wrap
		if r.domain.Range > 0 {
			r.offset += float64(r.domain.Range) * s.r.Float64()
		}
	}
}

// wake has the discrete GPU be awake if a job runs on it.
func (s *scene) wake() {
	awake := s.uses(power.NVIDIA)
	s.Lock()
	defer s.Unlock()
	s.rails["gpu"].asleep = s.rails["gpu"].asleep && !awake
}

// uses reports whether a job runs on such a device.
func (s *scene) uses(c power.DeviceClass) bool {
	return slices.ContainsFunc(s.open, func(j *Span) bool { return j.work.Class == c })
}

// taken adds up what the jobs took of all domains, with the tails that are too
// short to be told yet.
func (s *scene) taken() (sum power.Energy) {
	for _, a := range slices.Concat(s.meter.accounts, s.meter.gone) {
		sum += a.untold
	}
	for _, j := range s.done {
		for _, p := range j.parts {
			sum += p.energy
		}
		sum += j.tailSoFar
	}
	return sum
}

func TestEnergyOfThePartsIsTheWhole(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			s := play(seed, 300, time.Second, false)
			taken := power.Energy(0)
			for _, b := range s.meter.Balances() {
				if b.Jobs+b.Background+b.Idle != b.Counted {
					t.Fatalf("seed %d: %s: jobs %d + background %d + idle %d is not the %d that were counted",
						seed, b.Domain.Name, b.Jobs, b.Background, b.Idle, b.Counted)
				}
				if b.Jobs < 0 || b.Background < 0 || b.Idle < 0 {
					t.Fatalf("seed %d: %s: negative: %+v", seed, b.Domain.Name, b)
				}
				taken += b.Jobs
				if whole := s.rails[b.Domain.Name].total(); b.Counted > whole+1 {
					t.Fatalf("seed %d: %s: counted %v of %v", seed, b.Domain.Name, b.Counted, whole)
				}
			}
			if got := s.taken(); got != taken {
				t.Fatalf("seed %d: jobs say %d, the balances %d", seed, got, taken)
			}
			for _, j := range s.done {
				for _, p := range j.parts {
					if p.energy < 0 || p.idled < 0 {
						t.Fatalf("seed %d: a job took %d and %d", seed, p.energy, p.idled)
					}
				}
			}
		})
	}
}

func TestWhatAJobWasToldStays(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			s := play(seed, 300, time.Second, false)
			var now []power.Energy
			for _, j := range s.done {
				for _, p := range j.parts {
					now = append(now, p.energy)
				}
			}
			if !slices.Equal(now, s.told) {
				t.Fatalf("seed %d: jobs were told %v, and now it is %v", seed, s.told, now)
			}
		})
	}
}

func TestNothingIsMissedWhileCountersAreWell(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			s := play(seed, 200, time.Second, true)
			sum := power.Energy(0)
			for _, b := range s.meter.Balances() {
				if b.Domain.Name != "gpu" {
					sum += b.Counted
				}
			}
			// The rail is within the package. The last reading of the two is at
			// the very end; hardware shows what it counted a period ago.
			whole := s.rails["package-0"].total()
			if off := whole - sum; off < -1 || off > 100*power.Joule/1000 {
				t.Fatalf("seed %d: counted %d of %d", seed, sum, whole)
			}
		})
	}
}

func TestTicksChangeNobodysShare(t *testing.T) {
	for seed := range uint64(40) {
		var want []power.Energy
		for _, ticks := range []time.Duration{time.Second, 170 * time.Millisecond, 10 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				s := play(seed, 200, ticks, true)
				var got []power.Energy
				for _, j := range s.done {
					for _, p := range j.parts {
						got = append(got, p.energy, p.idled)
					}
				}
				if want == nil {
					want = got
				}
				for i := range want {
					// A counter shows whole microjoules, and every reading of
					// it may cut off one.
					if off := got[i] - want[i]; off < -50 || off > 50 {
						t.Fatalf("seed %d: with ticks of %v a share is %d, not %d", seed, ticks, got[i], want[i])
					}
				}
			})
		}
	}
}

func TestSplitLosesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		e := power.Energy(r.Int64N(1 << r.IntN(60)))
		list := make([]float64, 1+r.IntN(6))
		for i := range list {
			if r.IntN(3) > 0 {
				list[i] = r.Float64() * 100
			}
		}
		sum := power.Energy(0)
		for i, share := range split(e, list) {
			if share < 0 || list[i] == 0 && share > 1 && slices.Max(list) > 0 && i < len(list)-1 {
				t.Fatalf("%d by %v gives %d to %d", e, list, share, i)
			}
			sum += share
		}
		if sum != e {
			t.Fatalf("%d by %v adds up to %d", e, list, sum)
		}
	}
}

func TestARailIsWithinItsPackageOnlyWhileThatIsCounted(t *testing.T) {
	for _, c := range []struct {
		rule     string
		breaks   []bool // of the package: during 4 s each
		rail     power.Energy
		together power.Energy
	}{
		{"all the time", []bool{false, false}, 16 * power.Joule, 160 * power.Joule},
		{"in its first half", []bool{false, true}, 16 * power.Joule, 88 * power.Joule},
		{"not at all", []bool{true, true}, 16 * power.Joule, 16 * power.Joule},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(pkg, npu)
			meter := New(m.options())
			defer meter.Close()
			m.draws("package-0", 20*power.Watt)
			m.draws("npu", 2*power.Watt)
			m.fail(c.breaks[0])
			s := meter.Begin(context.Background(), work(power.NPU))
			for _, broken := range c.breaks {
				m.fail(broken)
				pass(4 * time.Second)
			}
			m.fail(false)
			cost := s.End(context.Background(), 0, 0)
			var rail, sum power.Energy
			for _, b := range meter.Balances() {
				sum += b.Counted
				if b.Domain.Name == "npu" {
					rail = b.Counted
				}
			}
			if !near(rail, c.rail) || !near(sum, c.together) || !near(cost.Energy, c.together) {
				t.Errorf("%s: the rail has %v, and both %v; the job is told %+v", c.rule, rail, sum, cost)
			}
		})
	}
}
