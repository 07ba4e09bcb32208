package energyd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

// ticking is a counter that is one more each time it is read.
type ticking struct {
	domain power.Domain
	reads  *atomic.Int64
	err    error
}

func newTicking(name string, scope power.Scope) ticking {
	return ticking{domain: power.Domain{Name: name, Scope: scope, Source: "rapl", Cumulative: true, Range: 1000}, reads: new(atomic.Int64)}
}

func (c ticking) Domain() power.Domain { return c.domain }

func (c ticking) Read(context.Context) (power.Reading, error) {
	return power.Reading{At: time.Now(), Energy: power.Energy(c.reads.Add(1))}, c.err
}

func TestHardwareIsReadTenTimesASecondHoweverOftenItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counter := newTicking("package-0", power.ScopePackage)
		h := newHardware([]Reader{counter})
		for range 5 {
			go func() {
				for range 1000 {
					if _, err := h.look(t.Context()); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
			}()
		}
		time.Sleep(999 * time.Millisecond)
		if n := counter.reads.Load(); n != 10 {
			t.Errorf("%d reads in a second", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := counter.reads.Load(); n != 10 {
			t.Errorf("it was read when nobody asked: %d", n)
		}
	})
}

func TestOnlyWhatIsPublicGoesOut(t *testing.T) {
	inner := newTicking("package-0", power.ScopePackage)
	gpu := newTicking("gpu 0000:03:00.0", power.ScopeDiscreteGPU)
	unheard := newTicking("telemetry", "telemetry")
	draw := newTicking("apu", power.ScopePackage)
	draw.domain.Cumulative = false
	line, err := newHardware([]Reader{gpu, inner, unheard, draw}).look(t.Context())
	if a, failed := parseAnswer(line); err != nil || failed != nil || len(a.Domains) != 1 || a.Domains[0].Name != "package-0" {
		t.Errorf("%s, %v, %v", line, err, failed)
	}
	for _, c := range []ticking{gpu, unheard, draw} {
		if c.reads.Load() > 0 {
			t.Errorf("%s was read", c.domain.Name)
		}
	}
}

func TestWhatCannotBeReadHasNoFigure(t *testing.T) {
	good, bad := newTicking("package-0", power.ScopePackage), newTicking("core-0", power.ScopeCore)
	bad.err = errors.New("input/output error")
	line, err := newHardware([]Reader{good, bad}).look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var a struct{ Domains []map[string]any }
	if err := json.Unmarshal(line, &a); err != nil || len(a.Domains) != 2 {
		t.Fatalf("%s, %v", line, err)
	}
	if _, ok := a.Domains[1]["energy_uj"]; ok || a.Domains[1]["error"] != "input/output error" || a.Domains[0]["energy_uj"] != 1. {
		t.Errorf("the answer is %s", line)
	}
}

func TestWhoMayAsk(t *testing.T) {
	member := Access{Groups: []uint32{990}, Users: []uint32{1001}}
	for _, tt := range []struct {
		name   string
		access Access
		peer   helper.Peer
		want   bool
	}{
		{"root always", Access{}, helper.Peer{UID: 0, GID: 5}, true},
		{"nobody else by default", Access{}, helper.Peer{UID: 1000, GID: 1000, Groups: []uint32{1000}}, false},
		{"a member", member, helper.Peer{UID: 1000, GID: 1000, Groups: []uint32{4, 990}}, true},
		{"a member by the main group", member, helper.Peer{UID: 1000, GID: 990}, true},
		{"no member", member, helper.Peer{UID: 1000, GID: 1000, Groups: []uint32{4, 1001}}, false},
		{"a user by number", member, helper.Peer{UID: 1001, GID: 1001}, true},
		{"a group is no user", Access{Groups: []uint32{1000}}, helper.Peer{UID: 1000, GID: 5}, false},
		{"root's group is not root", Access{}, helper.Peer{UID: 1000, GID: 0, Groups: []uint32{0}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.access.admits(tt.peer); got != tt.want {
				t.Errorf("admitted %v", got)
			}
		})
	}
}

func TestRoomForAllAndForEach(t *testing.T) {
	c := make(crowd)
	for range mostOfOne {
		if c.refuses(1000) {
			t.Fatal("no room for one")
		}
		c[1000]++
	}
	if !c.refuses(1000) || c.refuses(1001) {
		t.Error("one user takes another's room")
	}
	for uid := uint32(1001); len(c) < most/mostOfOne; uid++ {
		c[uid] = mostOfOne
	}
	if !c.refuses(2000) {
		t.Error("there is room for any number of users")
	}
	c.leave(1000)
	if c.refuses(1000) {
		t.Error("who leaves makes no room")
	}
}

func TestOnlyCountersAndWhatDescribesThemAreOpened(t *testing.T) {
	log := powertest.NewLog(powertest.Load(t, "meteor-lake").AsRoot().Sys())
	var found []string
	for _, s := range sysfs.Sensors(Whitelist(log)) {
		if _, err := s.Read(t.Context()); err != nil {
			t.Error(err)
		}
		found = append(found, s.Domain().Name+" in "+s.Domain().Within)
	}
	want := []string{"package-0 in ", "core-0 in package-0", "uncore-0 in package-0", "psys in ", "npu in package-0"}
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	for _, name := range log.Opened() {
		if !strings.HasPrefix(name, "class/powercap") && !strings.HasPrefix(name, "class/intel_pmt") {
			t.Errorf("%s was opened", name)
		}
	}
}

func TestWhitelist(t *testing.T) {
	const zone = "class/powercap/intel-rapl:0"
	for _, name := range []string{
		"class/powercap", "class/powercap/intel-rapl", zone, zone + "/energy_uj", zone + "/name", zone + "/max_energy_range_uj",
		zone + "/intel-rapl:0:1/energy_uj", "class/powercap/intel-rapl-mmio:0/energy_uj", "class/powercap/intel-rapl/intel-rapl:0/energy_uj",
		"class/intel_pmt", "class/intel_pmt/telem12/guid", "class/intel_pmt/telem12/telem",
	} {
		if !listed(name) {
			t.Errorf("%s is kept from the helper", name)
		}
	}
	for _, name := range []string{
		".", "class", "class/powercap2", "class/powercap/dtpm/energy_uj", "class/powercap/intel-rapl:x/energy_uj", zone + "/uevent",
		zone + "/constraint_0_power_limit_uw", zone + "/device/energy_uj", zone + "/energy_uj/../../../../etc/shadow",
		"class/powercap/../../etc/shadow", "class/intel_pmt/crashlog1/crashlog", "class/intel_pmt/telem1/device/telem",
		"class/intel_pmt/telem/../x/telem", "bus/pci/devices", "x/class/powercap/intel-rapl:0/energy_uj", zone + "/energy_uj\n",
	} {
		if listed(name) {
			t.Errorf("%s is in the helper's reach", name)
		}
	}
}

func TestNoTimePassesWithinOneLook(t *testing.T) {
	c := client{}
	d := domain{Name: "package-0", Energy: new(power.Energy(7)), At: helper.ToWire(time.Now().Add(-time.Second))}
	first := c.find(d)
	c.found = map[string]found{d.Name: first}
	if again := c.find(d); !again.reading.At.Equal(first.reading.At) {
		t.Errorf("it is %v older", again.reading.At.Sub(first.reading.At))
	}
	d.At += int64(interval)
	if next := c.find(d); !next.reading.At.After(first.reading.At) {
		t.Errorf("another look was not later: %v", next.reading.At.Sub(first.reading.At))
	}
}

// questions are lines that are none, but for the first two.
var questions = []string{
	`{"read":true}`, " {\t\"read\" : true } \r\n", "", "\n", "null", "true", "[]", "{}", `{"read":false}`, `{"read":1}`, `{"read":null}`,
	`{"read":"class/powercap/../../etc/shadow"}`, `{"read":true,"zone":"intel-rapl:0"}`, `{"read":true}{"read":true}`, `{"read":true}x`,
	`{"read":true`, "GET / HTTP/1.1\r\n", "\xff\xfe", `{"read":` + strings.Repeat("[", 100),
}

func TestTheOnlyQuestion(t *testing.T) {
	for i, line := range questions {
		if err := parseQuestion([]byte(line)); (err == nil) != (i < 2) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	for _, line := range questions {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if parseQuestion(line) != nil {
			return
		}
		var q map[string]any
		if err := json.Unmarshal(line, &q); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		for key := range q {
			if !strings.EqualFold(key, "read") {
				t.Errorf("%q was taken for a question", line)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, line := range []string{
		`{"domains":[]}`, `{"error":"not for this user: 1000"}`, `{"domains":[{"name":"npu","range_uj":-1}]}`,
		`{"domains":[{"name":"package-0","scope":"package","source":"rapl","range_uj":1000,"most_uw":1,"period_ns":1,"energy_uj":12,"at_ns":5}]}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line)
		if err != nil && len(a.Domains) > 0 {
			t.Errorf("both %v and %v", a, err)
		}
		c := client{found: map[string]found{}}
		for _, d := range a.Domains {
			if domain := d.domain(); domain.Name == "" || domain.Range < 0 || domain.Most < 0 || domain.Period < 0 {
				t.Errorf("a domain like %+v", domain)
			}
			if r := c.find(d); r.err == nil && (r.reading.Energy < 0 || r.reading.At.After(time.Now())) {
				t.Errorf("a reading like %+v", r.reading)
			}
		}
	})
}

func TestWhoSaysNothingIsLetGo(t *testing.T) {
	for _, said := range []string{"", `{"read":`, `{"read":true}` + "\n"} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			start := time.Now()
			go converse(t.Context(), theirs, newHardware(nil))
			go func() { _, _ = ours.Write([]byte(said)) }()
			if _, err := io.ReadAll(ours); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took != silence {
				t.Errorf("after %q and then nothing it was let go after %v", said, took)
			}
			_ = ours.Close()
		})
	}
}

func TestWhoDripsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		start := time.Now()
		go converse(t.Context(), theirs, newHardware(nil))
		for range 100 {
			if _, err := fmt.Fprint(ours, " "); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > silence+time.Second {
			t.Errorf("it was heard out for %v", took)
		}
		_ = ours.Close()
	})
}
