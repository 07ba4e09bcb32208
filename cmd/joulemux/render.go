package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// table writes rows in aligned columns. Whatever a cell holds stays in it.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = plain(cell)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// writeStatus writes a status for people.
func writeStatus(w io.Writer, s wire.Status) error {
	t := newTable(w)
	for _, detail := range details(s) {
		what, said, _ := strings.Cut(detail, ": ")
		t.row(what, said)
	}
	t.row("daemon", s.Version)
	if err := t.flush(); err != nil || len(s.Backends) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return writeBackends(w, s.Backends)
}

// details says everything of a status but the backends, each as "what: …".
func details(s wire.Status) []string {
	list := []string{
		"tier: " + s.Tier + ", " + s.TierReason + since(s.Since),
		"supply: " + cmp.Or(s.Supply.Text, "not known"),
		"profile: " + cmp.Or(s.Profile, "none"),
		"policy: " + s.Policy,
	}
	for _, h := range s.Holds {
		list = append(list, fmt.Sprintf("hold: %s by %s: %s%s", h.Tier, h.Holder, cmp.Or(h.Reason, "no reason given"), since(h.Since)))
	}
	list = append(list, "active: "+active(s), fmt.Sprintf("running: %s", counted(s.Running, "job")))
	if s.Faults != "" {
		list = append(list, "faults: "+s.Faults)
	}
	if s.DrawWatts != nil {
		list = append(list, fmt.Sprintf("draw: %.1f W from the battery", *s.DrawWatts))
	}
	for _, d := range s.Draws {
		list = append(list, d.Domain+": "+drawn(d)+" ("+d.Source+")")
	}
	if len(s.Unreadable) > 0 {
		list = append(list, "unreadable: "+strings.Join(s.Unreadable, ", ")+": root alone may read it; the README says how to change that")
	}
	if h := s.Heat; h != nil {
		list = append(list, "processor: "+heated(*h))
	}
	if s.Degraded != "" {
		list = append(list, "degraded: "+s.Degraded)
	}
	if c := s.CrossCheck; c != nil {
		list = append(list, fmt.Sprintf("sensors: see %.0f %% of what the battery gave in %.0f min", 100*c.Ratio, c.Seconds/60))
	}
	for _, d := range s.Devices {
		list = append(list, d.Address+": "+d.Vendor+" "+d.Kind+", "+powered(d))
	}
	return list
}

func heated(h wire.Heat) string {
	said := "of unknown temperature"
	if h.Celsius > 0 {
		said = fmt.Sprintf("%.0f °C", h.Celsius)
	}
	if h.Reason != "" {
		said += ", " + h.Reason
	}
	return said
}

func drawn(d wire.Draw) string {
	if d.Asleep {
		return "asleep"
	}
	return fmt.Sprintf("%.1f W", d.Watts)
}

// powered says in what state a device is, and what keeps it from sleeping.
func powered(d wire.Device) string {
	said := cmp.Or(d.Status, "of unknown state")
	if d.PowerState != "" {
		said += " in " + d.PowerState
	}
	if d.BusyMs > 0 {
		said += fmt.Sprintf(", busy for %.0f s since its driver was loaded", float64(d.BusyMs)/1000)
	}
	if d.NeverSleeps {
		said += ", set never to sleep (power/control is on)"
	}
	return said
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", since " + t.Local().Format("2006-01-02 15:04:05")
}

func active(s wire.Status) string {
	if s.ActiveBackend == "" {
		return cmp.Or(s.ActiveReason, "no backend")
	}
	return s.ActiveBackend + ", " + s.ActiveReason
}

// counted is a number of things, as in "no jobs", "1 job", "2 jobs".
func counted(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing + "s"
	case 1:
		return "1 " + thing
	default:
		return fmt.Sprintf("%d %ss", n, thing)
	}
}

// summary is a status in a line.
func summary(s wire.Status) string {
	parts := []string{"tier " + s.Tier + ", " + s.TierReason, active(s)}
	if s.Supply.Battery {
		parts = append(parts, fmt.Sprintf("%.0f %%", s.Supply.ChargePercent))
	}
	if s.Policy != "auto" {
		parts = append(parts, "policy "+s.Policy)
	}
	if len(s.Holds) > 0 {
		parts = append(parts, counted(len(s.Holds), "hold"))
	}
	if s.Running > 0 {
		parts = append(parts, counted(s.Running, "job"))
	}
	return plain(strings.Join(parts, "; "))
}

// writeBackends writes a line for each backend.
func writeBackends(w io.Writer, backends []wire.Backend) error {
	if len(backends) == 0 {
		_, err := fmt.Fprintln(w, `there is no backend; "joulemux status" says why`)
		return err
	}
	t := newTable(w)
	t.row("BACKEND", "HARDWARE", "STATE", "MODELS", "LOADED", "POWER", "LATENCY", "PER MINUTE", "ERRORS", "")
	for _, b := range backends {
		m := b.Metrics
		t.row(b.ID, b.Hardware, b.Status.State,
			fmt.Sprint(len(b.Capabilities.Models)), cmp.Or(strings.Join(m.LoadedModels, ", "), "-"),
			draw(m), latency(m), fmt.Sprint(m.RequestsPerMinute),
			fmt.Sprintf("%.0f %%", 100*m.ErrorRate), cmp.Or(b.Status.Message, leave(b)))
	}
	return t.flush()
}

// leave says who may leave this machine for a backend elsewhere, and for how much.
func leave(b wire.Backend) string {
	r := b.Remote
	if r == nil {
		return ""
	}
	said := "remote, for nobody"
	if len(r.Clients) > 0 {
		said = "remote, when " + r.When + ", for " + strings.Join(r.Clients, ", ") + " (" + strings.Join(r.Classes, ", ") + ")"
	}
	if r.Currency != "" {
		said += fmt.Sprintf("; %v and %v %s for a million tokens", r.InputPrice, r.OutputPrice, r.Currency)
	}
	if b.Status.LastCheckUnix == 0 {
		said += "; not asked yet"
	}
	return said
}

// draw is a power with its quality: alone it would pass for a measurement.
func draw(m wire.Metrics) string {
	if m.PowerQuality == "unknown" || m.PowerQuality == "none" {
		return m.PowerQuality
	}
	return fmt.Sprintf("%.1f W %s", m.PowerWatts, m.PowerQuality)
}

// latency is the mean one; zero stands for none known.
func latency(m wire.Metrics) string {
	if m.AvgLatencyMs == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", m.AvgLatencyMs)
}

// writeModels writes a line for each model.
func writeModels(w io.Writer, models []wire.Model) error {
	if len(models) == 0 {
		_, err := fmt.Fprintln(w, "no backend has a model")
		return err
	}
	t := newTable(w)
	t.row("MODEL", "SIZE", "PARAMETERS", "QUANT", "CONTEXT", "ABILITIES", "BACKENDS", "LOADED ON", "FITS")
	for _, m := range models {
		context := "-"
		if m.MaxContext > 0 {
			context = fmt.Sprint(m.MaxContext)
		}
		t.row(strings.Join(m.Names, ", "), size(m.SizeBytes), cmp.Or(m.Parameters, "-"), cmp.Or(m.Quantisation, "-"), context, listed(m.Abilities),
			strings.Join(m.Backends, ", "), listed(loadedOn(m)), fitting(m.Fits))
	}
	return t.flush()
}

func listed(words []string) string { return cmp.Or(strings.Join(words, ", "), "-") }

// loadedOn says where a model is loaded, and until when.
func loadedOn(m wire.Model) (list []string) {
	for _, p := range m.Places {
		switch {
		case !p.Resident:
		case p.Until != nil && time.Until(*p.Until) < 24*time.Hour: // later is for ever
			list = append(list, p.Backend+" until "+p.Until.Local().Format(time.TimeOnly))
		default:
			list = append(list, p.Backend)
		}
	}
	return list
}

// fitting says where a model fits. Of where nobody knows nothing is said.
func fitting(fits []wire.Fit) string {
	var yes, no []string
	for _, f := range fits {
		switch f.Verdict {
		case "fits":
			yes = append(yes, f.Backend)
		case "does not fit":
			no = append(no, f.Backend)
		}
	}
	said := strings.Join(yes, ", ")
	if len(no) > 0 {
		said = strings.TrimPrefix(said+"; not "+strings.Join(no, ", "), "; ")
	}
	return cmp.Or(said, "not known")
}

// size is a number of bytes as models are counted: in decimal units.
func size(bytes int64) string {
	switch b := float64(bytes); {
	case b >= 1e9:
		return fmt.Sprintf("%.1f GB", b/1e9)
	case b >= 1e6:
		return fmt.Sprintf("%.0f MB", b/1e6)
	case b > 0:
		return fmt.Sprintf("%.0f kB", b/1e3)
	default:
		return "-"
	}
}
