package simulate_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/simulate"
	"github.com/joulemux/joulemux/power"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hour is one of a laptop whose battery runs low and is plugged in.
func hour() simulate.Plot {
	moment := func(minute float64, tier power.Tier, charge, npu, gpu float64) simulate.Moment {
		return simulate.Moment{
			At: seconds(60 * minute), Tier: tier, Charge: charge / 100,
			Draws: []power.Power{power.Watts(npu), power.Watts(gpu)},
		}
	}
	return simulate.Plot{
		Title: `An hour of "joulemux" <on> a & b`, Devices: []string{"npu", "dgpu"}, Battery: true, End: time.Hour,
		Moments: []simulate.Moment{
			moment(0, power.Saver, 25, 0, 0),
			moment(5, power.Saver, 24, 1.2, 0),
			moment(15, power.Saver, 22, 0, 0),
			moment(20, power.Low, 19.9, 1.2, 0),
			moment(30, power.Low, 18, 0, 0),
			moment(35, power.Mains, 18, 0, 30),
			moment(36, power.Mains, 19, 1.2, 50),
			moment(40, power.Mains, 25, 0, 8),
			moment(50, power.Mains, 40, 0, 0),
		},
	}
}

// week is a run of more moments than a plot shows, in which every device goes
// on and off.
func week() simulate.Plot {
	p := simulate.Plot{Title: "A week", Devices: []string{"a", "b", "c", "d", "e", "f", "g"}, Battery: true, End: 7 * 24 * time.Hour}
	const moments = 48_000 // 24 for each that is drawn
	for i := range moments {
		m := simulate.Moment{
			At: p.End / moments * time.Duration(i), Charge: 0.5 + math.Sin(float64(i))/2,
			Tier: power.Tiers()[i/9000],
		}
		for d := range p.Devices {
			m.Draws = append(m.Draws, power.Power((i+d)%(3+d))*17*power.Watt)
		}
		p.Moments = append(p.Moments, m)
	}
	return p
}

func drawn(t *testing.T, p simulate.Plot) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPlotIsAsItWas(t *testing.T) {
	got := drawn(t, hour())
	golden := filepath.Join("testdata", "hour.svg")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the plot differs from %s; look at it, and write it with -update:\n%s", golden, got)
	}
}

func TestPlotsAreWellFormedAndSmall(t *testing.T) {
	for name, p := range map[string]simulate.Plot{
		"hour": hour(), "week": week(), "nothing": {}, "one moment": {Devices: []string{"a"}, Moments: week().Moments[:1]},
	} {
		got := drawn(t, p)
		if len(got) > 300_000 {
			t.Errorf("%s: the plot has %d bytes", name, len(got))
		}
		for _, never := range []string{"NaN", "Inf", "%!", "<script"} {
			if strings.Contains(got, never) {
				t.Errorf("%s: there is %q in the plot", name, never)
			}
		}
		if got != drawn(t, p) {
			t.Errorf("%s: the plot of the same is another", name)
		}
		if err := wellFormed(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestLegendNamesWhatIsThere(t *testing.T) {
	got := drawn(t, hour())
	for _, name := range []string{"npu", "dgpu", "charge", "tier saver", "tier low", "tier mains", "draw of the devices (W)", "charge (%)", "time (h:mm)", "&lt;on&gt; a &amp; b"} {
		if !strings.Contains(got, name+"</text>") {
			t.Errorf("nothing says %q", name)
		}
	}
	desktop := hour()
	desktop.Battery = false
	if got := drawn(t, desktop); strings.Contains(got, "charge (%)") || strings.Contains(got, `class="halo"`) || strings.Contains(got, "tier critical") {
		t.Error("what is not there is named")
	}
}

// The areas of a long run are the joules of each device, as those of a short
// one are.
func TestMeansKeepTheEnergy(t *testing.T) {
	p := week()
	p.Devices, p.Battery = p.Devices[:1], false
	for i := range p.Moments {
		p.Moments[i].Draws = []power.Power{power.Power(i%2*100) * power.Watt}
	}
	got := drawn(t, p)
	// Half of the time 100 W: all of the time 50 W, which are the top then.
	if want := `d="M60 350H60V44H945V350Z"`; !strings.Contains(got, want) {
		t.Errorf("no %s in\n%.3000s", want, got)
	}
}
