package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/packaging/rig"
)

// stop is a moment of the day.
type stop struct {
	event  string // What happens to the laptop.
	change func(*rig.Machine) error
	charge int
	tier   string // What the daemon is to make of it.
	// background is what a job for which nobody waits is to come to, and gpu
	// one for which the NVIDIA GPU is asked by name.
	background, gpu outcome
}

var stops = []stop{
	{"Plugged in at 80 %", (*rig.Machine).Plug, 80, "mains", answered, answered},
	{"Unplugged at 80 %", (*rig.Machine).Unplug, 80, "battery", answered, answered},
	{"Down to 45 %", to(45), 45, "saver", answered, answered},
	{"Down to 19 %", to(19), 19, "low", waits, answered},
	{"Down to 3 %", to(3), 3, "critical", refused, refused},
	{"Plugged in again at 3 %", (*rig.Machine).Plug, 3, "mains", answered, answered},
}

func to(charge int) func(*rig.Machine) error {
	return func(m *rig.Machine) error { return m.SetCharge(charge) }
}

// question is something to ask of the daemon at a stop.
type question struct {
	asked string
	ask   func(context.Context, ...string) (answer, error)
	flags []string
	want  outcome
}

// questions has the one over D-Bus at a single stop: it goes the same way as
// the ordinary one.
func (s stop) questions(l *laptop) []question {
	ordinary := []question{{"ordinary", l.generate, nil, answered}}
	if s.tier == "battery" {
		ordinary = append(ordinary, question{"ordinary, D-Bus", l.generateOverDBus, nil, answered})
	}
	background := []string{"--background"}
	if s.background == waits {
		background = append(background, "--deadline=2s") // Or it would wait until the laptop is plugged in.
	}
	return append(ordinary,
		question{"latency-critical", l.generate, []string{"--latency-critical"}, answered},
		question{"on the GPU", l.generate, []string{"--target=nvidia"}, s.gpu},
		question{"background", l.generate, background, s.background})
}

// day takes a laptop through its day. The error says what did not go as it
// should.
func day(ctx context.Context, c console) (err error) {
	l, err := startLaptop(ctx, c, site{tiny: "tiny"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	if _, err := f.await(ctx, l.allServe); err != nil {
		l.tellLog()
		return fmt.Errorf("four backends: %w", err)
	}
	t := &table{out: c.out}
	t.header(l.model)
	var faults []error
	for _, s := range stops {
		if err := l.visit(ctx, s, f, t); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.event, err))
		}
		if err := errors.Join(ctx.Err(), t.err); err != nil {
			return err
		}
	}
	faults = append(faults, l.showEnergy(ctx, t))
	if errors.Join(faults...) != nil {
		l.tellLog()
	}
	return errors.Join(faults...)
}

// showEnergy shows the ledger of the day.
func (l *laptop) showEnergy(ctx context.Context, t *table) error {
	said, err := l.output(ctx, l.file("bin", "joulemux"), "energy", "--by", "backend")
	if err != nil {
		return fmt.Errorf("joulemux energy: %w: %s", err, said)
	}
	t.printf("\nWhat the day took, in Wh, by the ledger (joulemux energy):\n%s", said)
	return t.err
}

// visit brings the laptop to a stop and asks what there is to ask.
func (l *laptop) visit(ctx context.Context, s stop, f *follower, t *table) error {
	if err := s.change(l.machine); err != nil {
		return err
	}
	status, err := f.await(ctx, at(s.tier, s.charge))
	if err != nil {
		return fmt.Errorf("tier %s: %w", s.tier, err)
	}
	t.stop(s.event, status)
	var faults []error
	for _, q := range s.questions(l) {
		faults = append(faults, q.put(ctx, t, status))
	}
	return errors.Join(faults...)
}

// put asks, and shows what comes of it whatever it is. The error says if it
// should have been something else.
func (q question) put(ctx context.Context, t *table, s wire.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	a, err := q.ask(ctx, q.flags...)
	if err != nil {
		return fmt.Errorf("%s: %w", q.asked, err)
	}
	t.row(q.asked, a, s)
	switch got := a.outcome(); got {
	case q.want:
		return nil
	case answered:
		return fmt.Errorf("%s: answered, which this tier should not allow (want: %s)", q.asked, q.want)
	default:
		return fmt.Errorf("%s: %s: %s", q.asked, got, a.why())
	}
}
