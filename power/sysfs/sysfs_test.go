package sysfs_test

import (
	"io/fs"
	"maps"
	"testing"
	"testing/fstest"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/sysfs"
)

// tree makes a file system of paths and contents.
func tree(files map[string]string) fstest.MapFS {
	t := fstest.MapFS{}
	for name, text := range files {
		t[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return t
}

// supply puts attributes into the folder of one supply.
func supply(name string, attributes map[string]string) map[string]string {
	files := map[string]string{}
	for a, v := range attributes {
		files["class/power_supply/"+name+"/"+a] = v + "\n"
	}
	return files
}

func merged(trees ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, t := range trees {
		maps.Copy(all, t)
	}
	return all
}

func TestSupply(t *testing.T) {
	unplugged := supply("AC", map[string]string{"type": "Mains", "online": "0"})
	plugged := supply("AC", map[string]string{"type": "Mains", "online": "1"})
	battery := func(name, status, capacity string) map[string]string {
		return supply(name, map[string]string{"type": "Battery", "present": "1", "status": status, "capacity": capacity})
	}
	withEnergy := func(name, status, now, full string) map[string]string {
		return supply(name, map[string]string{"type": "Battery", "status": status, "capacity": "1", "energy_now": now, "energy_full": full})
	}
	for _, c := range []struct {
		machine string
		files   map[string]string
		want    power.Supply
	}{
		{
			"a laptop unplugged", merged(unplugged, battery("BAT0", "Discharging", "62")),
			power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: 62},
		},
		{
			"a laptop plugged in", merged(plugged, battery("BAT0", "Charging", "62")),
			power.Supply{Source: "sysfs", Battery: true, Charge: 62},
		},
		{
			"a charger that is too weak", merged(plugged, battery("BAT0", "Discharging", "62")),
			power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: 62},
		},
		{
			"a charge limit", merged(plugged, battery("BAT0", "Not charging", "80")),
			power.Supply{Source: "sysfs", Battery: true, Charge: 80},
		},
		{
			"a gauge that does not know, unplugged", merged(unplugged, battery("BAT0", "Unknown", "50")),
			power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: 50},
		},
		{
			"a gauge that does not know, plugged in", merged(plugged, battery("BAT0", "Unknown", "50")),
			power.Supply{Source: "sysfs", Battery: true, Charge: 50},
		},
		{
			"two batteries of different size", merged(unplugged, withEnergy("BAT0", "Not charging", "20000000", "20000000"), withEnergy("BAT1", "Discharging", "10000000", "60000000")),
			power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: 37.5},
		},
		{
			"a battery bay that is empty", merged(plugged, supply("BAT0", map[string]string{"type": "Battery", "present": "0", "capacity": "0"})),
			power.Supply{Source: "sysfs"},
		},
		{
			"a desktop with a wireless mouse", supply("hidpp_battery_0", map[string]string{"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "5"}),
			power.Supply{Source: "sysfs"},
		},
		{
			"a battery that claims too much", merged(unplugged, withEnergy("BAT0", "Discharging", "70000000", "60000000")),
			power.Supply{Source: "sysfs", Battery: true, Discharging: true, Charge: 100},
		},
		{
			"a battery that says nothing readable", merged(unplugged, supply("BAT0", map[string]string{"type": "Battery", "status": "Discharging", "capacity": "many"})),
			power.Supply{Source: "sysfs"},
		},
		{"no power_supply at all", map[string]string{"class/net/lo/mtu": "65536"}, power.Supply{}},
	} {
		if got := sysfs.Supply(tree(c.files)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.machine, got, c.want)
		}
	}
	empty := fstest.MapFS{"class/power_supply": {Mode: fs.ModeDir}}
	if got := sysfs.Supply(empty); got != (power.Supply{Source: "sysfs"}) {
		t.Errorf("an empty folder: %+v, want line power", got)
	}
}

func TestFullCharge(t *testing.T) {
	battery := func(name string, more map[string]string) map[string]string {
		return supply(name, merged(map[string]string{"type": "Battery", "present": "1", "scope": "System"}, more))
	}
	line := supply("AC", map[string]string{"type": "Mains", "online": "1"})
	energy := battery("BAT0", map[string]string{"energy_full": "50000000", "energy_full_design": "57000000"})
	for _, c := range []struct {
		machine string
		files   map[string]string
		watt    float64 // hours; 0 if that is not known
	}{
		{"a battery that counts energy", merged(line, energy), 50},
		{"one that counts charge", battery("BAT0", map[string]string{"charge_full": "4000000", "voltage_min_design": "11400000"}), 45.6},
		{"energy stands above charge", battery("BAT0", map[string]string{"energy_full": "50000000", "charge_full": "1", "voltage_min_design": "1"}), 50},
		{"two batteries", merged(energy, battery("BAT1", map[string]string{"charge_full": "2000000", "voltage_min_design": "10000000"})), 70},
		{"two batteries, of which one says nothing", merged(energy, battery("BAT1", nil)), 0},
		{"a bay that is empty", merged(energy, supply("BAT1", map[string]string{"type": "Battery", "present": "0"})), 50},
		{"the battery of a mouse", merged(energy, supply("hidpp_battery_0", map[string]string{"type": "Battery", "scope": "Device", "energy_full": "1000000"})), 50},
		{"charge without a voltage", battery("BAT0", map[string]string{"charge_full": "4000000"}), 0},
		{"a battery that is worn out, or so it says", battery("BAT0", map[string]string{"energy_full": "0"}), 0},
		{"a battery that says nothing readable", battery("BAT0", map[string]string{"energy_full": "much"}), 0},
		{"no battery", line, 0},
		{"no power_supply at all", map[string]string{"class/net/lo/mtu": "65536"}, 0},
	} {
		full, known := sysfs.FullCharge(tree(c.files))
		if want := power.Joules(c.watt * 3600); full != want || known != (want > 0) {
			t.Errorf("%s: %v Wh (%t), want %v Wh", c.machine, full.WattHours(), known, c.watt)
		}
	}
}

func TestGPUs(t *testing.T) {
	pci := func(address, class, vendor string, more map[string]string) map[string]string {
		dir := "bus/pci/devices/" + address + "/"
		files := map[string]string{dir + "class": class, dir + "vendor": vendor, dir + "uevent": "DRIVER=x\nPCI_SLOT_NAME=" + address + "\n"}
		for a, v := range more {
			files[dir+a] = v
		}
		return files
	}
	awake := func(revision string) map[string]string {
		return map[string]string{"power/runtime_status": "active", "gpu_metrics": "\x78\x00" + revision + "\x04"}
	}
	got, err := sysfs.GPUs(tree(merged(
		pci("0000:00:02.0", "0x030000", "0x8086", nil),
		pci("0000:03:00.0", "0x030000", "0x8086", nil),
		pci("0000:01:00.0", "0x030200", "0x10de", nil),
		pci("0000:01:00.1", "0x040300", "0x10de", nil), // its sound
		pci("0000:c1:00.0", "0x038000", "0x1002", awake("\x03")),
		pci("0000:c2:00.0", "0x030000", "0x1002", awake("\x01")),
		pci("0000:c3:00.0", "0x030000", "0x1002", map[string]string{"power/runtime_status": "suspended"}),
		pci("0000:00:1f.0", "0x060100", "0x8086", nil),
	)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]power.DeviceClass{
		"0000:00:02.0": power.IntegratedGPU,
		"0000:03:00.0": power.DiscreteGPU,
		"0000:01:00.0": power.NVIDIA,
		"0000:c1:00.0": power.IntegratedGPU,
		"0000:c2:00.0": power.DiscreteGPU,
		"0000:c3:00.0": power.Unclassified,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// opens records which files were opened.
type opens struct {
	fs.FS
	names map[string]bool
}

func (o opens) Open(name string) (fs.File, error) {
	o.names[name] = true
	return o.FS.Open(name)
}

func TestSleepingGPUIsNotRead(t *testing.T) {
	dir := "class/drm/renderD129/device/"
	o := opens{tree(map[string]string{
		dir + "vendor": "0x1002", dir + "power/runtime_status": "suspended", dir + "gpu_metrics": "\x78\x00\x01\x04",
	}), map[string]bool{}}
	if got := sysfs.RenderNode(o, "renderD129"); got != power.Unclassified {
		t.Errorf("a sleeping GPU is %v", got)
	}
	if o.names[dir+"gpu_metrics"] {
		t.Error("gpu_metrics of a sleeping GPU was opened")
	}
}

func FuzzSupply(f *testing.F) {
	f.Add("Discharging", "62", "1", "2")
	f.Add("Full", "-1", "99999999999999999999", "0")
	f.Fuzz(func(t *testing.T, status, capacity, now, full string) {
		s := sysfs.Supply(tree(supply("BAT0", map[string]string{
			"type": "Battery", "status": status, "capacity": capacity, "energy_now": now, "energy_full": full,
		})))
		if s.Charge < 0 || s.Charge > 100 || s.Charge != s.Charge {
			t.Errorf("charge of %v", s.Charge)
		}
	})
}
