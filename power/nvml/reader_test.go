package nvml

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
)

const (
	gpu   = "0000:01:00.0"
	other = "0000:02:00.0"
)

// machine is a machine with NVIDIA GPUs, by address and runtime status.
func machine(statuses map[string]string) fstest.MapFS {
	sys := fstest.MapFS{}
	for address, status := range statuses {
		add(sys, address, "0x030200", "0x10de")
		sys[bus+"/"+address+"/power/runtime_status"] = &fstest.MapFile{Data: []byte(status + "\n")}
	}
	return sys
}

func add(sys fstest.MapFS, address, class, vendor string) {
	sys[bus+"/"+address+"/class"] = &fstest.MapFile{Data: []byte(class + "\n")}
	sys[bus+"/"+address+"/vendor"] = &fstest.MapFile{Data: []byte(vendor + "\n")}
}

// put changes the runtime status of a GPU.
func put(sys fstest.MapFS, address, status string) {
	sys[bus+"/"+address+"/power/runtime_status"] = &fstest.MapFile{Data: []byte(status + "\n")}
}

// steady is a library whose GPUs draw 30 W all the time, and count that.
type steady struct {
	opened, closed int
	looks          []time.Time
	began          time.Time
	onOpen         func()
	openErr        error
	energyErr      map[string]error
	drawErr        error
}

func newSteady() *steady { return &steady{began: time.Now()} }

func (l *steady) open() (Library, error) {
	l.opened++
	if l.onOpen != nil {
		l.onOpen()
	}
	return l, l.openErr
}

func (l *steady) Energy(device string) (power.Energy, error) {
	l.looks = append(l.looks, time.Now())
	return (30 * power.Watt).For(time.Since(l.began)), l.energyErr[device]
}

func (l *steady) Draw(string) (power.Power, error) { return 30 * power.Watt, l.drawErr }

func (l *steady) Close() error {
	l.closed++
	return nil
}

// readerOf returns a reader of the GPUs of a machine.
func readerOf(t *testing.T, sys fs.FS, l *steady) *reader {
	t.Helper()
	gpus, err := GPUs(sys)
	if err != nil {
		t.Fatal(err)
	}
	return newReader(sys, gpus, l.open, slog.New(slog.DiscardHandler))
}

func TestHardwareIsReadTwiceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newSteady()
		r := readerOf(t, machine(map[string]string{gpu: "active"}), l)
		const seconds = 20
		var last Sample
		for range seconds * 100 {
			s, err := r.read(t.Context(), gpu)
			if err != nil {
				t.Fatal(err)
			}
			// What is told again is told with its own time.
			if age := time.Since(s.At); age > interval {
				t.Fatalf("a sample is %v old", age)
			}
			if since := s.At.Sub(last.At); since != 0 && since < renewal {
				t.Fatalf("looks are %v apart", since)
			}
			if want := (30 * power.Watt).For(s.At.Sub(l.began)); s.Energy != want {
				t.Fatalf("%v at %v, want %v", s.Energy, s.At, want)
			}
			last = s
			time.Sleep(10 * time.Millisecond)
		}
		if most := saved + 2*seconds; len(l.looks) > most {
			t.Errorf("%d looks in %d s, want at most %d", len(l.looks), seconds, most)
		}
		if len(l.looks) < 2*seconds {
			t.Errorf("only %d looks in %d s", len(l.looks), seconds)
		}
	})
}

func TestEventsOfAJobAreReadFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := readerOf(t, machine(map[string]string{gpu: "active"}), newSteady())
		// The beginning, the first token, a tick each second, and the end, of one
		// job after the other.
		for range 3 {
			for _, pause := range []time.Duration{200, 800, 1000, 1000, 150, 1000} {
				s, err := r.read(t.Context(), gpu)
				if err != nil || time.Since(s.At) != 0 {
					t.Errorf("got what was known %v ago, %v", time.Since(s.At), err)
				}
				time.Sleep(pause * time.Millisecond)
			}
		}
	})
}

func TestLibraryIsOnlyOpenWhileAllAreAwake(t *testing.T) {
	ctx := t.Context()
	for _, status := range []string{"suspended", "suspending", "resuming", "error", "unsupported"} {
		for _, sleeper := range []string{gpu, other} {
			sys := machine(map[string]string{gpu: "active", other: "active"})
			put(sys, sleeper, status)
			l := newSteady()
			_, err := readerOf(t, sys, l).read(ctx, gpu)
			if !errors.Is(err, power.ErrAsleep) || l.opened > 0 {
				t.Errorf("with %s %s: %v, opened %d times", sleeper, status, err, l.opened)
			}
		}
	}

	synctest.Test(t, func(t *testing.T) {
		sys, l := machine(map[string]string{gpu: "active"}), newSteady()
		r := readerOf(t, sys, l)
		if _, err := r.read(ctx, gpu); err != nil {
			t.Fatal(err)
		}
		put(sys, gpu, "suspended")
		if _, err := r.read(ctx, gpu); !errors.Is(err, power.ErrAsleep) || l.closed != 1 {
			t.Errorf("it fell asleep: %v, closed %d times", err, l.closed)
		}
		put(sys, gpu, "active")
		time.Sleep(interval)
		if _, err := r.read(ctx, gpu); err != nil || l.opened != 2 {
			t.Errorf("it woke up: %v, opened %d times", err, l.opened)
		}
	})
}

func TestGPUThatFallsAsleepDuringTheOpeningIsNotRead(t *testing.T) {
	sys, l := machine(map[string]string{gpu: "active"}), newSteady()
	l.onOpen = func() { put(sys, gpu, "suspending") }
	if _, err := readerOf(t, sys, l).read(t.Context(), gpu); !errors.Is(err, power.ErrAsleep) || len(l.looks) > 0 || l.closed != 1 {
		t.Errorf("got %v, %d looks, closed %d times", err, len(l.looks), l.closed)
	}
}

func TestWhatFailsIsNotTriedAgain(t *testing.T) {
	ctx := t.Context()
	lost := errors.New("GPU is lost")
	t.Run("the library", func(t *testing.T) {
		l := newSteady()
		l.openErr = errors.New("version mismatch")
		r := readerOf(t, machine(map[string]string{gpu: "active"}), l)
		for range 3 {
			if _, err := r.read(ctx, gpu); !errors.Is(err, power.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		}
		if l.opened != 1 {
			t.Errorf("tried %d times", l.opened)
		}
	})
	t.Run("a GPU, and another goes on", func(t *testing.T) {
		l := newSteady()
		l.energyErr = map[string]error{gpu: lost}
		r := readerOf(t, machine(map[string]string{gpu: "active", other: "active"}), l)
		for range 3 {
			if _, err := r.read(ctx, gpu); !errors.Is(err, power.ErrUnavailable) || !errors.Is(err, lost) {
				t.Errorf("got %v", err)
			}
		}
		if len(l.looks) != 1 || l.closed != 1 {
			t.Errorf("%d looks, closed %d times", len(l.looks), l.closed)
		}
		if _, err := r.read(ctx, other); err != nil {
			t.Errorf("the other: %v", err)
		}
	})
	t.Run("a GPU that is none of NVIDIA's", func(t *testing.T) {
		l := newSteady()
		for _, device := range []string{other, "", "../0000:01:00.0"} {
			_, err := readerOf(t, machine(map[string]string{gpu: "active"}), l).read(ctx, device)
			if !errors.Is(err, power.ErrUnavailable) || l.opened > 0 {
				t.Errorf("%q: %v, opened %d times", device, err, l.opened)
			}
		}
	})
}

func TestGPUWithoutCounterTellsItsDraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newSteady()
		l.energyErr = map[string]error{gpu: ErrNotSupported}
		r := readerOf(t, machine(map[string]string{gpu: "active"}), l)
		for range 2 {
			s, err := r.read(t.Context(), gpu)
			if err != nil || s.Counted || !s.Drawn || s.Draw != 30*power.Watt {
				t.Errorf("got %+v, %v", s, err)
			}
			time.Sleep(interval)
		}
		if len(l.looks) != 1 {
			t.Errorf("the counter was asked for %d times", len(l.looks))
		}
	})
}

func TestGPUThatTellsNothingCannotBeRead(t *testing.T) {
	l := newSteady()
	l.energyErr, l.drawErr = map[string]error{gpu: ErrNotSupported}, ErrNotSupported
	if _, err := readerOf(t, machine(map[string]string{gpu: "active"}), l).read(context.Background(), gpu); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
