package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/tracker"
)

// alive answers a supervisor that asks whether the daemon answers.
func (s *Server) alive(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

// ready answers one that asks whether a job could run.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if firstHealthy(s.Backends.LookHere(r.Context())) == nil {
		plain(w, http.StatusServiceUnavailable, "no backend is healthy\n")
		return
	}
	plain(w, http.StatusOK, "ok\n")
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"version": s.Version})
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	h := wire.Health{TimestampUnix: time.Now().Unix()}
	h.Status, h.BackendHealth = s.Backends.Look(r.Context()).Health()
	status := http.StatusOK
	if h.Status == backend.Unhealthy {
		status = http.StatusServiceUnavailable
	}
	if !wantsText(r) {
		reply(w, status, h)
		return
	}
	plain(w, status, table(func(row rower) {
		row("joulemux", h.Status)
		for _, id := range slices.Sorted(maps.Keys(h.BackendHealth)) {
			row(id, h.BackendHealth[id])
		}
	}))
}

func (s *Server) backends(w http.ResponseWriter, r *http.Request) {
	list := s.describeAll(s.Backends.Look(r.Context()))
	if !wantsText(r) {
		reply(w, http.StatusOK, wire.Backends{Backends: list})
		return
	}
	plain(w, http.StatusOK, table(func(row rower) {
		row("ID", "HARDWARE", "STATE", "WATTS", "MODELS", "LOADED", "MESSAGE")
		for _, b := range list {
			watts := fmt.Sprintf("%.1f (%s)", b.Metrics.PowerWatts, b.Metrics.PowerQuality)
			row(b.ID, b.Hardware, b.Status.State, watts, fmt.Sprint(len(b.Capabilities.Models)),
				strings.Join(b.Metrics.LoadedModels, ","), b.Status.Message)
		}
	}))
}

// describeAll returns the backends as compute.v1 lists them.
func (s *Server) describeAll(backends backend.Snapshot) []wire.Backend {
	list := []wire.Backend{}
	for _, b := range backends {
		list = append(list, describeBackend(b, s.Backends.Metrics(b.ID)))
	}
	return list
}

func describeBackend(b backend.Backend, m backend.Metrics) wire.Backend {
	d := wire.Backend{
		ID: b.ID, Type: b.Program(), Name: cmp.Or(b.Name, b.ID), Hardware: string(b.Class),
		Status:       wire.BackendState{State: b.State(), Message: b.Trouble()},
		Capabilities: wire.Capabilities{Generate: true, Embed: true, Stream: true, Models: []string{}, MaxContext: int32(min(b.MaxContext(), math.MaxInt32))},
		Metrics: wire.Metrics{
			AvgLatencyMs: int32(m.FirstToken.Milliseconds()), RequestsPerMinute: int32(m.PerMinute), ErrorRate: m.ErrorRate,
			PowerWatts: b.Profile.Draw.Watts(), PowerQuality: string(b.Profile.Quality), LoadedModels: []string{},
		},
		Lacks: b.Facts.Lacks,
	}
	if b.Remote() {
		d.Remote = describeRemote(b)
	}
	if !b.Checked.IsZero() {
		d.Status.LastCheckUnix = b.Checked.Unix()
	}
	for _, m := range b.Facts.Models {
		d.Capabilities.Models = append(d.Capabilities.Models, m.Name)
		if m.Resident {
			d.Metrics.LoadedModels = append(d.Metrics.LoadedModels, m.Name)
		}
	}
	return d
}

func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	list := []wire.Model{}
	for _, m := range s.Models.List(r.Context()) {
		list = append(list, describeModel(m))
	}
	reply(w, http.StatusOK, wire.Models{Models: list})
}

func describeModel(m registry.Model) wire.Model {
	d := wire.Model{
		Name: m.Names[0], Names: m.Names, Digest: m.Digest, SizeBytes: m.Size, Family: m.Family, Parameters: m.Parameters,
		Quantisation: m.Quantisation, MaxContext: m.Context, Abilities: m.Abilities,
	}
	d.Backends, d.Resident = m.Backends()
	for _, p := range m.Places {
		place := wire.Place{Backend: p.Backend, Name: p.Name, Resident: p.Resident}
		if p.Resident && !p.Until.IsZero() {
			place.Until = &p.Until
		}
		d.Places = append(d.Places, place)
	}
	for _, f := range m.Fits {
		d.Fits = append(d.Fits, wire.Fit{Backend: f.Backend, Verdict: string(f.Verdict), Reason: f.Reason})
	}
	return d
}

// status answers once, or with a line for each change.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if !r.URL.Query().Has("watch") {
		reply(w, http.StatusOK, s.describeStatus(r.Context(), s.Tiers.Look(r.Context()), s.Backends.Look(r.Context())))
		return
	}
	out := s.lines(w)
	var told wire.Status
	for now := range s.changes(r.Context()) {
		news := now
		news.Machine = wire.Machine{} // what it draws is always another
		if reflect.DeepEqual(news, told) {
			continue // a look at the backends, such as our own, is no change
		}
		if told = news; out.put(r.Context(), now) != nil {
			return
		}
	}
}

func (s *Server) describeStatus(ctx context.Context, now tracker.Snapshot, backends backend.Snapshot) wire.Status {
	d := wire.Status{
		Version: s.Version, Tier: now.Tier.String(), TierReason: string(now.Reason), Since: now.Since,
		Supply: wire.Supply{
			Source: now.Supply.Source, Battery: now.Supply.Battery, Discharging: now.Supply.Discharging,
			ChargePercent: float64(now.Supply.Charge), Text: now.Supply.String(),
		},
		Profile: string(now.Profile), Policy: string(now.Preference), Holds: []wire.Held{},
		Running: s.Runner.Running(), Machine: s.Machine(ctx), Faults: s.Faults(), Backends: s.describeAll(backends),
	}
	for _, h := range now.Holds {
		d.Holds = append(d.Holds, held(h))
	}
	if where, err := s.Runner.Prospect(now.Tier, backends); err == nil {
		d.ActiveBackend, d.ActiveReason = where.Backend, where.Reason()
	} else {
		d.ActiveReason = err.Error()
	}
	return d
}

func held(h power.Hold) wire.Held {
	return wire.Held{Cookie: h.Cookie, Tier: h.Tier.String(), Reason: h.Reason, Holder: h.Holder, Since: h.Since}
}

// changes yields the status now, and again whenever tier or backends change.
func (s *Server) changes(ctx context.Context) func(func(wire.Status) bool) {
	return func(yield func(wire.Status) bool) {
		ctx, cancel := context.WithCancel(ctx)
		changed := make(chan struct{}, 1)
		tell := func() {
			select {
			case changed <- struct{}{}:
			default: // one look will see both
			}
		}
		over := make(chan struct{}, 2)
		go func() {
			for range s.Tiers.Watch(ctx) {
				tell()
			}
			over <- struct{}{}
		}()
		go func() {
			for range s.Backends.Watch(ctx) {
				tell()
			}
			over <- struct{}{}
		}()
		defer func() { cancel(); <-over; <-over }()
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				if !yield(s.describeStatus(ctx, s.Tiers.Look(ctx), s.Backends.Look(ctx))) {
					return
				}
			}
		}
	}
}

func wantsText(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "json")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// rower takes the cells of a row.
type rower func(cells ...string)

// table returns aligned text.
func table(fill func(rower)) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fill(func(cells ...string) { fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t")) })
	_ = t.Flush() // a strings.Builder takes everything
	return b.String()
}
