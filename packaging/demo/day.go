package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// hour is a moment of the day, and the tier that it is expected to be.
type hour struct {
	what    string
	plugged bool
	charge  int
	tier    string
}

// hours are the day. The tiers are in the order of the table in README.md.
var hours = []hour{
	{"at the desk, on line power", true, 80, "mains"},
	{"unplugged", false, 80, "battery"},
	{"after a while", false, 45, "saver"},
	{"late", false, 15, "low"},
	{"nearly empty", false, 3, "critical"},
	{"plugged in again", true, 3, "mains"},
}

// question is what is asked at each hour.
type question struct {
	what  string
	flags []string
}

var questions = []question{
	{"an answer", nil},
	{"quick", []string{"--latency-critical"}},
	// Nobody waits for it, but the demo ends: on a tier where such jobs wait
	// for a better one, this one's deadline passes.
	{"background", []string{"--background", "--deadline", "3s"}},
}

const prompt = "Tell me about the morning train."

// live goes through the day, and prints a row for each answer.
func (l *laptop) live(ctx context.Context) error {
	t := table{os.Stdout}
	t.header(l.model)
	if err := l.warm(ctx); err != nil {
		return err
	}
	for _, h := range hours {
		if err := l.turn(ctx, h); err != nil {
			return err
		}
		t.hour(h)
		for _, q := range questions {
			o, err := l.generate(ctx, prompt, q.flags...)
			if err != nil {
				return err
			}
			t.row(q.what, o)
		}
		o, err := l.generateOverBus(ctx, prompt)
		if err != nil {
			return err
		}
		t.row("over D-Bus", o)
	}
	t.footer()
	return nil
}

// warm has every server load the model, so that the day shows devices and not
// loading.
func (l *laptop) warm(ctx context.Context) error {
	say("loading the model on each")
	for _, device := range devices {
		o, err := l.generate(ctx, prompt, "--target", device)
		if err == nil && o.error != nil {
			err = errors.New(o.error.Text)
		}
		if err != nil {
			return fmt.Errorf("the %s does not answer: %w", device, err)
		}
	}
	return nil
}

// turn makes it that hour on the simulated hardware, and waits until the daemon
// has heard of it from upowerd.
func (l *laptop) turn(ctx context.Context, h hour) error {
	power := l.machine.Unplug
	if h.plugged {
		power = l.machine.Plug
	}
	if err := errors.Join(l.machine.SetCharge(h.charge), power()); err != nil {
		return err
	}
	return l.await(ctx, h.tier, float64(h.charge))
}
