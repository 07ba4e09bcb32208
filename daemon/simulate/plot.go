package simulate

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Plot is a picture of a run: what each device draws over time, one upon the
// other, before bands of the tiers, with the charge as a line.
type Plot struct {
	Title string
	// Devices are the names of what draws, in the order of Moment.Draws.
	Devices []string
	// Battery tells whether there is a charge to show.
	Battery bool
	// Moments are in order of time; the last one lasts until End.
	Moments []Moment
	End     time.Duration
}

// mostMoments bounds the size of a plot. There are not as many pixels.
const mostMoments = 2000

// Where things stand in a plot, in its units, which are pixels unless it is
// scaled.
const (
	plotWidth             = 1000
	left, right           = 60, 945
	top, bottom           = 44, 350
	axisLabels            = bottom + 40
	legendFrom, legendRow = bottom + 66, 20
)

// plotStyle has colours that the colour-blind tell apart (Okabe and Ito), for
// the devices in their order, and the viewer's choice of light or dark.
const plotStyle = `text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}` +
	`.paper{fill:#fff}.grid{stroke:#000;stroke-opacity:.15}.axis{stroke:#333}` +
	`.device0{fill:#009e73}.device1{fill:#56b4e9}.device2{fill:#e69f00}.device3{fill:#d55e00}.device4{fill:#cc79a7}.device5{fill:#0072b2}` +
	`.mains{fill:#dfeedd}.battery{fill:#f1f1f1}.saver{fill:#faf0c8}.low{fill:#fbdcc0}.critical{fill:#f6c2c2}.unknown{fill:#dcdcec}` +
	`.charge{fill:none;stroke:#222;stroke-width:1.6}.halo{fill:none;stroke:#fff;stroke-opacity:.7;stroke-width:4}` +
	`@media(prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#181a1b}.grid{stroke:#fff}.axis{stroke:#ccc}` +
	`.mains{fill:#1f3322}.battery{fill:#26292b}.saver{fill:#3b3518}.low{fill:#46301c}.critical{fill:#4c2224}.unknown{fill:#2c2c40}` +
	`.charge{stroke:#fff}.halo{stroke:#000}}`

const deviceColours = 6

// WriteSVG writes the plot as an SVG picture without scripts. It is the same
// for the same plot, and bounded in size: of a long run the means over equal
// spans are drawn, so that areas stay the joules that they stand for.
func (p *Plot) WriteSVG(w io.Writer) error {
	d := newDrawing(p)
	d.bands()
	d.watts()
	d.areas()
	d.charge()
	d.hours()
	height := d.legend()
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">
<title>%s</title>
<style>%s</style>
<rect class="paper" width="%[1]d" height="%[2]d"/>
%[5]s</svg>
`, plotWidth, height, escaped(p.Title), plotStyle, d.b.String())
	return err
}

// drawing is a plot being drawn.
type drawing struct {
	*Plot
	moments []Moment
	most    power.Power // that is drawn at once, rounded up
	step    power.Power // from one line to the next
	b       strings.Builder
}

func newDrawing(p *Plot) *drawing {
	d := &drawing{Plot: p, moments: p.spread(mostMoments)}
	highest := power.Watt
	for i := range d.moments {
		highest = max(highest, d.moments[i].drawn(len(p.Devices)))
	}
	d.step = rounded(highest / 5)
	d.most = (highest + d.step - 1) / d.step * d.step
	d.printf(`<text class="title" x="%d" y="24">%s</text>`, left, escaped(p.Title))
	return d
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.b, format+"\n", args...) }

func (d *drawing) x(at time.Duration) float64 {
	return left + (right-left)*min(1, at.Seconds()/max(d.End.Seconds(), 1e-9))
}

func (d *drawing) y(draw power.Power) float64 { return d.height(draw.Watts() / d.most.Watts()) }

// height is where something stands that fills a share of the plot.
func (d *drawing) height(share float64) float64 { return bottom - (bottom-top)*share }

// until is when a moment is over.
func (d *drawing) until(i int) time.Duration {
	if i+1 < len(d.moments) {
		return d.moments[i+1].At
	}
	return d.End
}

// bands draws the tiers.
func (d *drawing) bands() {
	for i := 0; i < len(d.moments); {
		tier, from := d.moments[i].Tier, d.x(d.moments[i].At)
		for i < len(d.moments) && d.moments[i].Tier == tier {
			i++
		}
		width := d.x(d.until(i-1)) - from
		d.printf(`<rect class="%v" x="%s" y="%d" width="%s" height="%d"><title>tier %[1]v</title></rect>`, tier, tenth(from), top, tenth(width), bottom-top)
	}
}

// watts draws the lines and labels of the draw.
func (d *drawing) watts() {
	for draw := power.Power(0); draw <= d.most; draw += d.step {
		y := d.y(draw)
		d.printf(`<path class="grid" d="M%d %sH%d"/>`, left, tenth(y), right)
		d.printf(`<text x="%d" y="%s" text-anchor="end">%s</text>`, left-7, tenth(y+4), strconv.FormatFloat(draw.Watts(), 'f', -1, 64))
	}
	d.printf(`<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">draw of the devices (W)</text>`, (top+bottom)/2)
}

// areas draws what each device draws. Those on top reach down to the axis, and
// the others are drawn over them.
func (d *drawing) areas() {
	for n := len(d.Devices); n > 0; n-- {
		d.printf(`<path class="device%d" d="%s"><title>%s</title></path>`, (n-1)%deviceColours, d.steps(n), escaped(d.Devices[n-1]))
	}
}

// steps is the outline of what the first n devices draw.
func (d *drawing) steps(n int) string {
	var b strings.Builder
	at := tenth(bottom)
	for i := range d.moments {
		if y := tenth(d.y(d.moments[i].drawn(n))); y != at {
			if b.Len() == 0 {
				fmt.Fprintf(&b, "M%d %d", left, bottom)
			}
			fmt.Fprintf(&b, "H%sV%s", tenth(d.x(d.moments[i].At)), y)
			at = y
		}
	}
	if b.Len() > 0 {
		fmt.Fprintf(&b, "H%sV%dZ", tenth(d.x(d.End)), bottom)
	}
	return b.String()
}

// charge draws the charge and its axis.
func (d *drawing) charge() {
	if !d.Battery {
		return
	}
	for percent := 0; percent <= 100; percent += 20 {
		d.printf(`<text x="%d" y="%s">%d</text>`, right+7, tenth(d.height(float64(percent)/100)+4), percent)
	}
	d.printf(`<text transform="translate(%d %d) rotate(-90)" text-anchor="middle">charge (%%)</text>`, plotWidth-10, (top+bottom)/2)
	line, last := "", ""
	for i := range d.moments {
		m := &d.moments[i]
		if y := tenth(d.height(m.Charge)); y != last || i+1 == len(d.moments) {
			line += "L" + tenth(d.x(m.At)) + " " + y
			last = y
		}
	}
	if line != "" {
		line = "M" + line[1:] + "H" + tenth(d.x(d.End))
	}
	d.printf(`<path id="charge" class="halo" d="%s"/><path class="charge" d="%[1]s"><title>charge</title></path>`, line)
}

// hours draws the axis of time.
func (d *drawing) hours() {
	d.printf(`<path class="axis" d="M%d %dH%d"/>`, left, bottom, right)
	step := time.Minute
	for _, s := range []time.Duration{2, 5, 10, 15, 30, 60, 120, 240, 480, 1440} {
		if d.End/step > 12 {
			step = s * time.Minute
		}
	}
	step = max(step, (d.End / 12).Truncate(time.Hour))
	for at := time.Duration(0); at <= d.End; at += step {
		x := tenth(d.x(at))
		d.printf(`<path class="axis" d="M%s %dv5"/>`, x, bottom)
		d.printf(`<text x="%s" y="%d" text-anchor="middle">%d:%02d</text>`, x, bottom+19, int(at.Hours()), int(at.Minutes())%60)
	}
	d.printf(`<text x="%d" y="%d" text-anchor="middle">time (h:mm)</text>`, (left+right)/2, axisLabels)
}

// legend says what the colours are, and returns the height of the plot.
func (d *drawing) legend() int {
	x, y := left, legendFrom
	entry := func(mark, name string) {
		const perRune = 7 // wide enough for most
		width := 40 + perRune*len([]rune(name))
		if x > left && x+width > right {
			x, y = left, y+legendRow
		}
		d.printf(`<g transform="translate(%d %d)">%s<text x="20" y="0">%s</text></g>`, x, y, mark, escaped(name))
		x += width
	}
	for i, name := range d.Devices {
		entry(fmt.Sprintf(`<rect class="device%d" y="-10" width="14" height="11"/>`, i%deviceColours), name)
	}
	if d.Battery {
		entry(`<path class="charge" d="M0-4h14"/>`, "charge")
	}
	for _, tier := range power.Tiers() {
		if slices.ContainsFunc(d.moments, func(m Moment) bool { return m.Tier == tier }) {
			entry(fmt.Sprintf(`<rect class="%v" y="-10" width="14" height="11"/>`, tier), "tier "+tier.String())
		}
	}
	return y + legendRow
}

// drawn is what the first n devices draw.
func (m *Moment) drawn(n int) (sum power.Power) {
	for _, draw := range m.Draws[:n] {
		sum += draw
	}
	return sum
}

// spread returns the moments, or if there are more than that, so many that are
// evenly spread: with the mean draws until the next, and else as things stood.
func (p *Plot) spread(most int) []Moment {
	if len(p.Moments) <= most {
		return p.Moments
	}
	list := make([]Moment, most)
	span := p.End / time.Duration(most)
	at := 0
	for i := range list {
		from := span * time.Duration(i)
		for at+1 < len(p.Moments) && p.Moments[at+1].At <= from {
			at++
		}
		list[i] = p.Moments[at]
		list[i].At, list[i].Draws = from, p.mean(at, from, from+span)
	}
	return list
}

// mean returns the mean draws between two times, the first of them in moment
// at.
func (p *Plot) mean(at int, from, to time.Duration) []power.Power {
	draws := make([]power.Power, len(p.Devices))
	for i := range draws {
		var spent power.Energy
		for k, now := at, from; now < to; k++ {
			next := to
			if k+1 < len(p.Moments) {
				next = min(to, p.Moments[k+1].At)
			}
			spent += p.Moments[k].Draws[i].For(next - now)
			now = next
		}
		draws[i] = spent.Over(to - from)
	}
	return draws
}

// rounded returns the least of 1, 2, 5, 10, 20 and so on watts that is not less.
func rounded(p power.Power) power.Power {
	scale := math.Pow(10, math.Floor(math.Log10(max(p.Watts(), 0.1))))
	for _, n := range []float64{1, 2, 5} {
		if power.Watts(n*scale) >= p {
			return power.Watts(n * scale)
		}
	}
	return power.Watts(10 * scale)
}

// tenth formats a place to a tenth of a pixel.
func tenth(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}
