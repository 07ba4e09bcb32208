package nvml

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

// opens records which files were opened.
type opens struct {
	fs.FS
	names []string
}

func (o *opens) Open(name string) (fs.File, error) {
	o.names = append(o.names, name)
	return o.FS.Open(name)
}

func TestGPUsAreFoundWithoutADisturbance(t *testing.T) {
	sys := machine(map[string]string{gpu: "suspended", other: "active"})
	add(sys, "0000:01:00.1", "0x040300", "0x10de") // its sound
	add(sys, "0000:00:02.0", "0x030000", "0x8086")
	o := &opens{FS: sys}
	got, err := GPUs(o)
	if err != nil || !slices.Equal(got, []string{gpu, other}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, name := range o.names {
		if name != bus && !strings.HasSuffix(name, "/class") && !strings.HasSuffix(name, "/vendor") {
			t.Errorf("%s was opened", name)
		}
	}
}

func TestMachineWithoutPCIHasNoGPUs(t *testing.T) {
	if got, err := GPUs(fstest.MapFS{}); len(got) > 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAnswersComeAcross(t *testing.T) {
	for _, tt := range []struct {
		name string
		line string
		want Sample
		err  error
	}{
		{
			"a counter", `{"at_ns":5,"energy_mj":1234,"power_mw":30000}`,
			Sample{Energy: 1_234_000, Counted: true, Draw: 30 * power.Watt, Drawn: true},
			nil,
		},
		{"a draw of nothing is one", `{"at_ns":5,"power_mw":0}`, Sample{Drawn: true}, nil},
		{"more than there are numbers for", `{"at_ns":5,"energy_mj":9223372036854775807}`, Sample{Energy: 9_223_372_036_854_775_000, Counted: true}, nil},
		{"asleep", `{"error":"suspended","kind":"asleep"}`, Sample{}, power.ErrAsleep},
		{"unavailable", `{"error":"GPU is lost","kind":"unavailable"}`, Sample{}, power.ErrUnavailable},
		{"a kind that nobody knows yet", `{"kind":"new"}`, Sample{}, power.ErrUnavailable},
		{"an error of no kind", `{"error":"?"}`, Sample{}, power.ErrUnavailable},
		{"no figure", `{"at_ns":5}`, Sample{}, power.ErrUnavailable},
		{"no time", `{"energy_mj":1}`, Sample{}, power.ErrUnavailable},
		{"a time before any", `{"at_ns":-9223372036854775808,"energy_mj":1}`, Sample{}, power.ErrUnavailable},
		{"no JSON", `energy`, Sample{}, power.ErrUnavailable},
	} {
		got, err := sample([]byte(tt.line))
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if err == nil && got.at != 5 {
			t.Errorf("%s: taken at %d", tt.name, got.at)
		}
		if got.Energy != tt.want.Energy || got.Counted != tt.want.Counted || got.Draw != tt.want.Draw || got.Drawn != tt.want.Drawn {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzSample(f *testing.F) {
	f.Add(`{"at_ns":5,"energy_mj":1234}`)
	f.Add(`{"at_ns":9223372036854775807,"power_mw":-1}`)
	f.Fuzz(func(t *testing.T, line string) {
		s, err := sample([]byte(line))
		if err == nil && (s.At.After(time.Now()) || !s.Counted && !s.Drawn) {
			t.Errorf("%s is %+v", line, s)
		}
		if err != nil && !errors.Is(err, power.ErrAsleep) && !errors.Is(err, power.ErrUnavailable) {
			t.Errorf("%s: %v", line, err)
		}
	})
}

func TestMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &stepped{steady: newSteady(), step: 100 * time.Millisecond}
		report, err := Measure(t.Context(), machine(map[string]string{gpu: "active"}), func() (Library, error) { return l, nil }, gpu, 2*time.Second)
		if err != nil || l.closed != 1 {
			t.Fatalf("%v, closed %d times", err, l.closed)
		}
		for _, renewed := range report.Renewals {
			if renewed != 100*time.Millisecond {
				t.Errorf("renewed after %v", renewed)
			}
		}
		if len(report.Renewals) < 18 || report.Counted != 3*power.Energy(len(report.Renewals))*power.Joule || report.Integrated != report.Counted {
			t.Errorf("got %v", report)
		}
		for _, want := range []string{"every 100ms", "ratio 1.000"} {
			if !strings.Contains(report.String(), want) {
				t.Errorf("no %q in\n%v", want, report)
			}
		}
	})
}

// stepped renews its counter now and then.
type stepped struct {
	*steady
	step time.Duration
}

func (l *stepped) Energy(string) (power.Energy, error) {
	return (30 * power.Watt).For(time.Since(l.began).Truncate(l.step)), nil
}

func TestSleepersAreNotMeasured(t *testing.T) {
	l := newSteady()
	_, err := Measure(t.Context(), machine(map[string]string{gpu: "suspended"}), l.open, gpu, time.Second)
	if !errors.Is(err, power.ErrAsleep) || l.opened > 0 {
		t.Errorf("got %v, opened %d times", err, l.opened)
	}
}
