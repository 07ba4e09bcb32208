package systemd_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/dbus"
	"github.com/joulemux/joulemux/power/nvml"
	"github.com/joulemux/joulemux/systemd"
)

const service = "joulemuxd.service"

// services are the services by their sockets.
var services = map[string]string{
	"joulemux.socket":      service,
	"joulemux-http.socket": service,
	"joulemux-nvml.socket": "joulemux-nvml.service",
}

func TestUnitsHaveNoFaults(t *testing.T) {
	// The programs have to be there, and to be some that can be run.
	bin := t.TempDir()
	for _, program := range []string{"joulemuxd", "joulemux-nvml"} {
		if err := os.Symlink(os.Args[0], filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	units := t.TempDir()
	args := []string{"--user", "verify"}
	for _, name := range unitFiles(t) {
		text := strings.ReplaceAll(readFile(t, name), "@BINDIR@", bin)
		path := filepath.Join(units, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	cmd := analyze(t, args...)
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+t.TempDir())
	// A key that it does not know is a warning, and no reason for it to fail.
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestSocketsHaveTheNamesThatTheProgramAsksFor(t *testing.T) {
	var names []string
	for _, unit := range unitFiles(t) {
		if filepath.Ext(unit) != ".socket" {
			continue
		}
		u := readUnit(t, unit)
		names = append(names, u["FileDescriptorName"]...)
		if got := u["Service"]; !slices.Equal(got, []string{services[unit]}) {
			t.Errorf("%s starts %q", unit, got)
		}
	}
	slices.Sort(names)
	if want := []string{systemd.API, systemd.HTTP, systemd.NVML}; !slices.Equal(names, want) {
		t.Errorf("the units' sockets are %q, the program's %q", names, want)
	}
}

func TestServiceStartsOnlyTheSocketThatAllNeed(t *testing.T) {
	u := readUnit(t, service)
	for _, key := range []string{"Sockets", "Also"} {
		if want := []string{"joulemux.socket"}; !slices.Equal(u[key], want) {
			t.Errorf("%s is %q, want %q", key, u[key], want)
		}
	}
}

func TestSensorIsWhereTheDaemonLooksForIt(t *testing.T) {
	u := readUnit(t, "joulemux-nvml.socket")
	if want := "%t/" + nvml.Socket; !slices.Equal(u["ListenStream"], []string{want}) {
		t.Errorf("it listens at %q, want %q", u["ListenStream"], want)
	}
	if got := readUnit(t, service)["Wants"]; !slices.Equal(got, []string{"joulemux-nvml.socket"}) {
		t.Errorf("the daemon wants %q", got)
	}
	// Six short jobs in ten seconds are no failure.
	if got := readUnit(t, "joulemux-nvml.service")["StartLimitIntervalSec"]; !slices.Equal(got, []string{"0"}) {
		t.Errorf("starts are limited: %q", got)
	}
}

func TestCallsOnTheBusStartTheService(t *testing.T) {
	files, err := filepath.Glob("../packaging/dbus/*.service")
	if err != nil || len(files) != 2 {
		t.Fatalf("%d activation files, %v", len(files), err)
	}
	var names []string
	for _, file := range files {
		u := readUnit(t, file)
		names = append(names, u["Name"]...)
		if want := strings.TrimSuffix(filepath.Base(file), ".service"); !slices.Equal(u["Name"], []string{want}) {
			t.Errorf("%s is for %q", file, u["Name"])
		}
		if !slices.Equal(u["SystemdService"], []string{service}) || !slices.Equal(u["Exec"], []string{"/bin/false"}) {
			t.Errorf("%s starts %q, or %q without systemd", file, u["SystemdService"], u["Exec"])
		}
	}
	if want := []string{dbus.InferenceName, dbus.RouterName}; !slices.Equal(names, want) {
		t.Errorf("the files are for %q, the program's names are %q", names, want)
	}
	if u := readUnit(t, service); !slices.Equal(u["BusName"], []string{dbus.RouterName}) {
		t.Errorf("LogControl1 is on %s, and the unit says %q", dbus.RouterName, u["BusName"])
	}
}

func TestHardeningNeedsNoPrivileges(t *testing.T) {
	// What a user manager of systemd 252 ignores, or cannot do where user
	// namespaces are forbidden. CapabilityBoundingSet= is fatal everywhere.
	for _, unit := range []string{service, "joulemux-nvml.service"} {
		u := readUnit(t, unit)
		for key := range u {
			for _, bad := range []string{"Private", "Protect", "ReadWrite", "ReadOnly", "Inaccessible", "Capability", "IPAddress", "StateDirectory", "DynamicUser"} {
				if strings.HasPrefix(key, bad) {
					t.Errorf("%s: %s= is not for a user's service", unit, key)
				}
			}
		}
		for _, key := range []string{"NoNewPrivileges", "MemoryDenyWriteExecute", "RestrictNamespaces", "SystemCallFilter", "RestrictAddressFamilies"} {
			if len(u[key]) == 0 {
				t.Errorf("%s: %s= is missing", unit, key)
			}
		}
	}
}

func unitFiles(t *testing.T) []string {
	t.Helper()
	var units []string
	for _, pattern := range []string{"*.service", "*.socket"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		units = append(units, files...)
	}
	if len(units) == 0 {
		t.Fatal("there are no units")
	}
	return units
}

// readUnit returns the values of each key of a unit file, whose sections have
// no key in common.
func readUnit(t *testing.T, path string) map[string][]string {
	t.Helper()
	unit := make(map[string][]string)
	for line := range strings.Lines(readFile(t, path)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			unit[key] = append(unit[key], value)
		}
	}
	return unit
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
