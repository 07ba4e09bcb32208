package simulate_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

func TestShippedMachines(t *testing.T) {
	for _, name := range simulate.Shipped() {
		text, err := simulate.ShippedFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := simulate.ParseMachine(text)
		if err != nil || m.Name != name {
			t.Errorf("%s: %q, %v", name, m.Name, err)
		}
		everyFigureHasASource(t, name, text)
	}
	if _, err := simulate.Named("toaster"); err == nil || !strings.Contains(err.Error(), "hybrid, strix, thinkpad") {
		t.Errorf("an unknown machine: %v", err)
	}
}

// everyFigureHasASource checks that what a file has a number for, it has a
// source for, and be that "assumed".
func everyFigureHasASource(t *testing.T, name string, text []byte) {
	t.Helper()
	var file struct {
		Sources map[string]string
		Devices []json.RawMessage
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for i, part := range append(file.Devices, text) {
		var figures map[string]any
		if err := json.Unmarshal(part, &figures); err != nil {
			t.Fatal(err)
		}
		sources, _ := figures["sources"].(map[string]any)
		for key, value := range figures {
			if _, number := value.(float64); number && sources[key] == nil {
				t.Errorf("%s, part %d: %s has no source", name, i, key)
			}
		}
	}
}

func TestHybridIsThatOfThePublishedComparison(t *testing.T) {
	m, err := simulate.Named("hybrid")
	if err != nil {
		t.Fatal(err)
	}
	classes := []power.DeviceClass{power.NPU, power.IntegratedGPU, power.CPU, power.NVIDIA}
	for i, want := range hybrid().Devices {
		d := m.Devices[i]
		if d.Class != classes[i] || d.Source == "" {
			t.Errorf("%s is %s, from %q", d.ID, d.Class, d.Source)
		}
		d.Class, d.Source = "", ""
		if d.SleepAfter = 0; d != want {
			t.Errorf("%+v, want %+v", d, want)
		}
	}
}

func TestParseMachineReportsEveryProblem(t *testing.T) {
	const device = `{"id":"a","class":"cpu","prefill_tokens_per_second":1,"decode_tokens_per_second":1,"decode_watts":1}`
	for text, says := range map[string][]string{
		`{`:                    {"not a machine"},
		`{"name":"x"} {}`:      {"something follows"},
		`{"name":"x","ram":1}`: {`unknown field "ram"`},
		`{"name":"x","devices":[{"decode_wats":1}]}`:                         {`unknown field "decode_wats"`},
		`{"battery_wh":-1}`:                                                  {"name: missing", "battery_wh: want 0 to 100000, got -1", "devices: there are 0"},
		`{"name":"x","devices":[` + device + `,` + device + `]}`:             {`devices[1].id: want one of its own, got "a"`},
		`{"name":"x","devices":[{"id":"a","class":"abacus"}]}`:               {"devices[0].class", "devices[0].prefill_tokens_per_second: want 0.001", "devices[0].decode_tokens_per_second"},
		`{"name":"x","devices":[` + device + `],"sources":{"ram":"a list"}}`: {"sources.ram: there is no such figure"},
	} {
		_, err := simulate.ParseMachine([]byte(text))
		for _, want := range says {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want it to say %q", text, err, want)
			}
		}
	}
	m, err := simulate.ParseMachine([]byte(`{"name":"x","devices":[` + device + `]}`))
	if err != nil || m.Devices[0].DecodeDraw != power.Watt || !strings.Contains(m.Devices[0].Source, "decode_watts 1: assumed") {
		t.Errorf("%+v, %v", m, err)
	}
}

func FuzzParseMachine(f *testing.F) {
	for _, name := range simulate.Shipped() {
		text, err := simulate.ShippedFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := simulate.ParseMachine(text)
		if err != nil {
			return
		}
		// Whatever is taken can be run.
		o := simulate.DefaultOptions()
		trace := simulate.Trace{Length: time.Hour, Charge: 1, Requests: []simulate.Request{asked(0, simulate.Interactive), asked(time.Minute, simulate.Background)}}
		for _, p := range simulate.Baselines() {
			if _, err := simulate.Run(&m, &trace, p, &o); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
}

func TestRandomMachinesAreWithinPublishedRanges(t *testing.T) {
	const n = 3000
	count := make(map[power.DeviceClass]float64)
	for seed := range uint64(n) {
		m := simulate.Random(seed)
		for i := range m.Devices {
			d := &m.Devices[i]
			count[d.Class]++
			if perToken := d.DecodeDraw.Watts() / d.Decode; d.Prefill < 25 || d.Prefill > 3000 || perToken < 0.06 || perToken > 10 {
				t.Fatalf("seed %d: %+v", seed, d)
			}
			if held := d.Hold > 0; held != d.Class.Discrete() || held && (d.Hold < 4*power.Watt || d.Hold > 14*power.Watt) {
				t.Fatalf("seed %d: %s is held at %v", seed, d.ID, d.Hold)
			}
			if d.Load < 2*time.Second || d.Load > 15*time.Second {
				t.Fatalf("seed %d: %s loads for %v", seed, d.ID, d.Load)
			}
		}
	}
	for class, want := range map[power.DeviceClass]float64{power.CPU: 1, power.IntegratedGPU: 1, power.NPU: 2.0 / 3, power.NVIDIA: 2.0 / 3} {
		if share := count[class] / n; share < want-0.03 || share > want+0.03 {
			t.Errorf("%.2f have the class %s, want %.2f", share, class, want)
		}
	}
}
