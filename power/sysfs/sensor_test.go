package sysfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/powertest"
	"github.com/joulemux/joulemux/power/sysfs"
)

// listed is a line for each sensor with what it shows now.
func listed(t *testing.T, sensors []*sysfs.Sensor) []string {
	t.Helper()
	var lines []string
	for _, s := range sensors {
		d := s.Domain()
		line := d.Source + " " + d.Name
		if d.Within != "" {
			line += " in " + d.Within
		}
		switch r, err := s.Read(t.Context()); {
		case errors.Is(err, power.ErrAsleep):
			line += ": asleep"
		case errors.Is(err, power.ErrUnavailable):
			line += ": unavailable"
		case err != nil:
			line += ": " + err.Error()
		case r.At.IsZero():
			line += ": at no time"
		case d.Cumulative:
			line += ": " + r.Energy.String()
		default:
			line += ": " + r.Draw.String()
		}
		lines = append(lines, line)
	}
	return lines
}

func names(domains []power.Domain) []string {
	var all []string
	for _, d := range domains {
		all = append(all, d.Source+" "+d.Name)
	}
	return all
}

func TestSensorsOfEachMachine(t *testing.T) {
	for _, c := range []struct {
		machine    string
		want       []string
		unreadable []string
	}{
		{
			"meteor-lake", nil,
			[]string{"rapl package-0", "rapl core-0", "rapl uncore-0", "rapl psys", "pmt npu"},
		},
		{
			"arrow-lake",
			[]string{
				"rapl package-0: 51235 J", "rapl core-0 in package-0: 21235 J", "rapl uncore-0 in package-0: 235 J",
				"rapl psys: 91235 J",
			},
			[]string{"pmt npu"},
		},
		{
			"strix",
			[]string{"amdgpu apu: 18.4 W", "amdgpu gfx in apu: 6.2 W", "amdgpu npu in apu: 2.3 W"},
			[]string{"rapl package-0", "rapl core-0"},
		},
		{
			"hawk-point",
			[]string{"rapl package-0: 41235 J", "rapl core-0 in package-0: 9235 J", "amdgpu gfx in package-0: 3.3 W"},
			nil,
		},
		{
			"optimus", nil,
			[]string{"rapl package-0", "rapl core-0", "rapl uncore-0"},
		},
		{
			"desktop",
			[]string{
				"rapl package-0-die-0: 31235 J", "rapl core-0-die-0 in package-0-die-0: 21235 J",
				"amdgpu gpu 0000:03:00.0: 187.0 W",
			},
			nil,
		},
		{"vm", nil, nil},
	} {
		sys := powertest.Load(t, c.machine).Sys()
		if got := listed(t, sysfs.Sensors(sys)); !slices.Equal(got, c.want) {
			t.Errorf("%s has the sensors\n\t%s\nwant\n\t%s", c.machine, strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
		}
		if got := names(sysfs.Unreadable(sys)); !slices.Equal(got, c.unreadable) {
			t.Errorf("%s keeps from us %q, want %q", c.machine, got, c.unreadable)
		}
	}
	if sensors := sysfs.Sensors(tree(nil)); sensors != nil {
		t.Errorf("an empty tree has the sensors %v", listed(t, sensors))
	}
}

func TestRootReadsAll(t *testing.T) {
	sys := powertest.Load(t, "meteor-lake").AsRoot().Sys()
	want := []string{
		"rapl package-0: 84123 J", "rapl core-0 in package-0: 31235 J", "rapl uncore-0 in package-0: 1235 J",
		"rapl psys: 123457 J", "pmt npu in package-0: 1500 J",
	}
	if got := listed(t, sysfs.Sensors(sys)); !slices.Equal(got, want) {
		t.Errorf("root has %q, want %q", got, want)
	}
	if closed := sysfs.Unreadable(sys); closed != nil {
		t.Errorf("%v is kept from root", names(closed))
	}
}

func TestDomainsSayWhatAMeterNeeds(t *testing.T) {
	for _, name := range powertest.Names(t) {
		sensors := sysfs.Sensors(powertest.Load(t, name).AsRoot().Sys())
		seen := make(map[string]power.Scope)
		for _, s := range sensors {
			d := s.Domain()
			if _, twice := seen[d.Name]; twice {
				t.Errorf("%s: two sensors of %s", name, d.Name)
			}
			seen[d.Name] = d.Scope
			if d.Cumulative && (d.Range <= 0 || d.Most <= 0) {
				t.Errorf("%s: a wrap of %s cannot be told: %+v", name, d.Name, d)
			}
			if (d.Device != "") != (d.Scope == power.ScopeDiscreteGPU) {
				t.Errorf("%s: %s is of the device %q", name, d.Name, d.Device)
			}
		}
		for _, s := range sensors {
			if within := s.Domain().Within; within != "" && seen[within] != power.ScopePackage {
				t.Errorf("%s: %s is in %s, which is no package of it", name, s.Domain().Name, within)
			}
		}
	}
}

// sensorOf returns the sensor of a domain.
func sensorOf(t *testing.T, sys fs.FS, domain string) *sysfs.Sensor {
	t.Helper()
	for _, s := range sysfs.Sensors(sys) {
		if s.Domain().Name == domain {
			return s
		}
	}
	t.Fatalf("there is no sensor of %s", domain)
	return nil
}

func TestCountersMove(t *testing.T) {
	m := powertest.Load(t, "arrow-lake")
	s := sensorOf(t, m.Sys(), "package-0")
	want := power.Domain{
		Name: "package-0", Scope: power.ScopePackage, Source: "rapl", Cumulative: true,
		Range: 262143328850, Most: 250 * power.Watt, Period: s.Domain().Period,
	}
	if got := s.Domain(); got != want {
		t.Errorf("it is of %+v, want %+v", got, want)
	}
	for _, count := range []power.Energy{1, 262143328850, 0} {
		m.Set("sys/class/powercap/intel-rapl:0/energy_uj", fmt.Sprintln(int64(count)))
		if r, err := s.Read(t.Context()); err != nil || r.Energy != count {
			t.Errorf("it shows %d, %v after %d", r.Energy, err, count)
		}
	}
}

func TestAPowerLimitAboveOursIsTheMost(t *testing.T) {
	m := powertest.Load(t, "arrow-lake")
	m.Set("sys/class/powercap/intel-rapl:0/constraint_0_max_power_uw", "400000000\n")
	if most := sensorOf(t, m.Sys(), "package-0").Domain().Most; most != 400*power.Watt {
		t.Errorf("it may draw %v", most)
	}
}

// flaky fails to open or to read some files.
type flaky struct {
	fs.FS
	open, read map[string]error
}

func (f flaky) Open(name string) (fs.File, error) {
	if err := f.open[name]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return flakyFile{file, name, f.read}, nil
}

type flakyFile struct {
	fs.File
	name  string
	fails map[string]error
}

func (f flakyFile) Read(p []byte) (int, error) {
	if err := f.fails[f.name]; err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: err}
	}
	return f.File.Read(p)
}

func (f flakyFile) ReadDir(n int) ([]fs.DirEntry, error) { return f.File.(fs.ReadDirFile).ReadDir(n) }

func TestSensorsThatAreLost(t *testing.T) {
	const energy = "class/powercap/intel-rapl:0/energy_uj"
	for _, c := range []struct {
		what        string
		err         error
		unavailable bool
	}{
		{"the udev rule is undone", fs.ErrPermission, true},
		{"the driver is unloaded", fs.ErrNotExist, true},
		{"the register cannot be read", errors.New("input/output error"), false},
	} {
		m := powertest.Load(t, "arrow-lake")
		sys := flaky{m.Sys(), map[string]error{}, map[string]error{}}
		s := sensorOf(t, sys, "package-0")
		sys.open[energy] = c.err
		if _, err := s.Read(t.Context()); err == nil || errors.Is(err, power.ErrUnavailable) != c.unavailable {
			t.Errorf("%s: %v", c.what, err)
		}
		delete(sys.open, energy)
		if _, err := s.Read(t.Context()); err != nil {
			t.Errorf("%s, and then not: %v", c.what, err)
		}
	}
}

func TestTwinsAndMirrors(t *testing.T) {
	const msr, mmio = "sys/class/powercap/intel-rapl:0/", "sys/class/powercap/intel-rapl-mmio:0/"
	for _, c := range []struct {
		rule   string
		change func(m *powertest.Machine)
		want   string
	}{
		{"registers are preferred", func(*powertest.Machine) {}, "rapl package-0: 84123 J"},
		{"memory is read where registers are not there", func(m *powertest.Machine) {
			m.Remove("sys/class/powercap/intel-rapl:0")
			m.Set(mmio+"energy_uj", "5000000\n")
		}, "rapl package-0: 5.00 J"},
		{"or fail", func(m *powertest.Machine) {
			m.Set(msr+"energy_uj", "\n")
			m.Set(mmio+"energy_uj", "5000000\n")
		}, "rapl package-0: 5.00 J"},
		{"or do not tell their range", func(m *powertest.Machine) {
			m.Remove(msr + "max_energy_range_uj")
			m.Set(mmio+"energy_uj", "5000000\n")
		}, "rapl package-0: 5.00 J"},
	} {
		m := powertest.Load(t, "meteor-lake").AsRoot()
		c.change(m)
		if got := listed(t, sysfs.Sensors(m.Sys())); !slices.Contains(got, c.want) {
			t.Errorf("%s: %q", c.rule, got)
		}
	}

	two := powertest.Load(t, "desktop")
	two.Set("sys/class/powercap/intel-rapl:1/energy_uj", "777000000\n")
	want := []string{
		"rapl package-0-die-0: 31235 J", "rapl core-0-die-0 in package-0-die-0: 21235 J",
		"rapl package-0-die-1: 777 J", "rapl core-0-die-1 in package-0-die-1: 21235 J",
	}
	if got := listed(t, sysfs.Sensors(two.Sys())); !slices.Equal(got[:4], want) {
		t.Errorf("two dies that count for themselves: %q", got)
	}
}

func TestZoneWithoutRangeIsOfNoUse(t *testing.T) {
	m := powertest.Load(t, "desktop")
	m.Remove("sys/class/powercap/intel-rapl:0/max_energy_range_uj")
	m.Remove("sys/class/powercap/intel-rapl:1/max_energy_range_uj")
	for _, s := range sysfs.Sensors(m.Sys()) {
		if s.Domain().Scope == power.ScopePackage {
			t.Errorf("%+v tells no wrap", s.Domain())
		}
	}
}

// TestLinks reads a tree as the kernel lays it out: the class has only links.
func TestLinks(t *testing.T) {
	root := t.TempDir()
	zone := filepath.Join(root, "devices/virtual/powercap/intel-rapl/intel-rapl:0")
	class := filepath.Join(root, "class/powercap")
	for _, dir := range []string{zone, class} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../devices/virtual/powercap/intel-rapl/intel-rapl:0", filepath.Join(class, "intel-rapl:0")); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(zone, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name", "package-0")
	write("max_energy_range_uj", "262143328850")
	write("energy_uj", "1000000")
	s := sensorOf(t, os.DirFS(root), "package-0")
	write("energy_uj", "2000000")
	if r, err := s.Read(t.Context()); err != nil || r.Energy != 2*power.Joule {
		t.Errorf("it shows %v, %v", r.Energy, err)
	}
}

func TestReadingIsCheap(t *testing.T) {
	m := powertest.Load(t, "arrow-lake")
	log := powertest.NewLog(m.Sys())
	s := sensorOf(t, log, "package-0")
	before := len(log.Opened())
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := s.Read(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if after := len(log.Opened()); after != before {
		t.Errorf("reading opened %v", log.Opened()[before:])
	}
	if allocs > 4 {
		t.Errorf("reading allocates %v times", allocs)
	}
}

func BenchmarkRead(b *testing.B) {
	sensors := sysfs.Sensors(powertest.Load(b, "arrow-lake").Sys())
	for b.Loop() {
		if _, err := sensors[0].Read(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// open lists the files of a folder that this process has open.
func open(t *testing.T, folder string) (names []string) {
	t.Helper()
	const own = "/proc/self/fd"
	entries, err := os.ReadDir(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(own, e.Name())); err == nil && strings.HasPrefix(name, folder) {
			names = append(names, name)
		}
	}
	return names
}

func TestNothingStaysOpenButWhatSensorsRead(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // It would close what is forgotten.
	for _, machine := range []string{"arrow-lake", "desktop", "hawk-point", "strix"} {
		folder := t.TempDir()
		if err := powertest.Load(t, machine).WriteSys(folder); err != nil {
			t.Fatal(err)
		}
		sys := os.DirFS(folder)
		sysfs.Unreadable(sys)
		if left := open(t, folder); len(left) > 0 {
			t.Errorf("%s: to see what is unreadable leaves %q open", machine, left)
		}
		for _, s := range sysfs.Sensors(sys) {
			s.Close()
		}
		if left := open(t, folder); len(left) > 0 {
			t.Errorf("%s: %q is open for no sensor", machine, left)
		}
	}
}
