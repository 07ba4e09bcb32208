package daemon

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
)

// packageTemperature is where the temperature of an Optimus laptop's processor
// is.
const packageTemperature = "sys/devices/platform/coretemp.0/hwmon/hwmon5/temp1_input"

// counted counts how often a temperature is read.
type counted struct {
	fs.FS
	reads int
}

// Open counts.
func (c *counted) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, "temp1_input") {
		c.reads++
	}
	return c.FS.Open(name)
}

func TestTheProcessorIsLookedAtOnceASecondWhileJobsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := powertest.Load(t, "optimus")
		sys := &counted{FS: machine.Sys()}
		h := &heat{sys: sys}
		if h.verdict().Vetoed {
			t.Error("at 63 °C it is too hot")
		}
		machine.Set(packageTemperature, "97000\n")
		for range 999 {
			if time.Sleep(time.Millisecond); h.verdict().Vetoed {
				t.Fatal("a look was taken within a second")
			}
		}
		if time.Sleep(time.Millisecond); h.verdict().Veto() != "too hot: 97 °C" || sys.reads != 2 {
			t.Errorf("after a second it is %+v, after %d looks", h.verdict(), sys.reads)
		}
		time.Sleep(time.Hour)
		if sys.reads != 2 {
			t.Errorf("at rest somebody looked %d times", sys.reads-2)
		}
	})
}

// silent is a server that nobody asks.
type silent struct{ backend.Server }

// Close does nothing.
func (silent) Close() {}

// Do does nothing either.
func (silent) Do(*http.Request) (*http.Response, error) { return nil, nil }

func TestHeatVetoesWhatIsOnTheProcessorsPackage(t *testing.T) {
	hot := power.Heat{Vetoed: true, Reason: power.ReasonHot, Since: 97}
	set := backend.New(func(backend.Spec) backend.Server { return silent{} },
		func(backend.Spec, job.Facts) power.DeviceClass { return power.Unclassified }, slog.New(slog.DiscardHandler))
	t.Cleanup(set.Close)
	configure := func(classes ...power.DeviceClass) {
		var specs []backend.Spec
		for _, class := range classes {
			specs = append(specs, backend.Spec{ID: string(class), Class: class, Endpoint: url.URL{Host: string(class)}})
		}
		set.Configure(specs)
	}
	looks := 0
	backends := cooled{set, func() power.Heat { looks++; return hot }, fstest.MapFS{}}

	configure(power.NVIDIA, power.DiscreteGPU, power.Cloud, power.Unclassified)
	for _, b := range backends.Current() {
		if b.Vetoed != "" {
			t.Errorf("%s is vetoed", b.ID)
		}
	}
	if looks != 0 {
		t.Error("the processor was looked at for what is not on it")
	}

	configure(power.NPU, power.IntegratedGPU, power.CPU, power.NVIDIA)
	for _, c := range backends.Current().Candidates("m") {
		if want := c.Class != power.NVIDIA; (c.Vetoed == "too hot: 97 °C") != want {
			t.Errorf("%s is vetoed: %q", c.ID, c.Vetoed)
		}
	}
	for _, b := range set.Current() {
		if want := b.Class != power.NVIDIA; (b.Vetoed != "") != want {
			t.Errorf("who is told of changes has of %s that it is vetoed: %q", b.ID, b.Vetoed)
		}
	}
	hot = power.Heat{}
	for _, b := range backends.Current() {
		if b.Vetoed != "" {
			t.Errorf("%s is vetoed though it is cool", b.ID)
		}
	}
}

func TestAProcessorThatIsTooHotIsLookedAtUntilItIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := backend.New(func(backend.Spec) backend.Server { return silent{} },
			func(backend.Spec, job.Facts) power.DeviceClass { return power.Unclassified }, slog.New(slog.DiscardHandler))
		defer set.Close()
		set.Configure([]backend.Spec{{ID: "cpu", Class: power.CPU}})
		var hot atomic.Bool
		var looks atomic.Int32
		backends := cooled{set, func() (h power.Heat) {
			looks.Add(1)
			if hot.Load() {
				h = power.Heat{Vetoed: true, Reason: power.ReasonHot}
			}
			return h
		}, fstest.MapFS{}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go backends.follow(ctx)

		after := func(d time.Duration) (int32, string) {
			time.Sleep(d)
			synctest.Wait()
			return looks.Load(), set.Current()[0].Vetoed
		}
		if n, _ := after(time.Hour); n != 0 {
			t.Errorf("at rest somebody looked %d times", n)
		}
		hot.Store(true)
		backends.Current() // a job
		if n, veto := after(time.Minute); n != 13 || veto != "too hot" {
			t.Errorf("after a minute it was looked at %d times, and is vetoed: %q", n, veto)
		}
		hot.Store(false)
		if n, veto := after(time.Hour); n != 14 || veto != "" {
			t.Errorf("once cool it was looked at %d times, and is vetoed: %q", n, veto)
		}
	})
}
