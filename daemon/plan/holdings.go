package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/power"
)

// holding is a model on a backend: what it costs to keep it, and until when it
// is kept.
type holding struct {
	residency.Holding
	running int
	// ended is when its last job did; zero before that.
	ended time.Time
	// kept is for how long the server was told to keep it after that, and draw
	// what that takes.
	kept time.Duration
	draw power.Power
	// letGo is when it is to go before the server lets go of it by itself;
	// zero is never.
	letGo time.Time
}

// note takes note of what it costs to keep the model of a job where it goes.
func (p *Plan) note(c *job.Candidate, j *placed) {
	h := p.holdings[j.at]
	if h == nil {
		h = new(holding)
		p.holdings[j.at] = h
	}
	costs(&h.Holding, c)
}

// costs fills in what keeping a candidate's model costs.
func costs(h *residency.Holding, c *job.Candidate) {
	h.Class, h.HoldDraw, h.LoadEnergy = c.Class, c.Profile.HoldDraw, c.Profile.LoadEnergy
	if h.LoadEnergy == 0 {
		h.LoadEnergy = c.Profile.Draw.For(c.LoadTime())
	}
}

// begin takes note that a job begins.
func (p *Plan) begin(now time.Time, j *placed) {
	h := p.holdings[j.at]
	if h.running == 0 && !h.ended.IsZero() {
		h.Gaps = h.Gaps.With(now.Sub(h.ended))
	}
	h.running++
	h.letGo = time.Time{}
}

// end takes note that a job has ended, and decides for how long its model
// stays.
func (p *Plan) end(now time.Time, j *placed) []Effect {
	h := p.holdings[j.at]
	h.running--
	if h.running > 0 {
		return nil
	}
	h.ended = now
	return p.decideStay(now, j.at, h)
}

// keepAlive returns what to tell the server about the model of a job that
// begins: the most that the model may stay, whoever comes. If nobody does, it
// is let go earlier.
func (p *Plan) keepAlive(j *placed) *time.Duration {
	h := p.holdings[j.at]
	if h.Class == power.Cloud { // what a server elsewhere keeps is its own affair
		return nil
	}
	awaited := h.Holding
	awaited.Waiting++
	keep := p.settings.Residency.Keep(p.tier, p.onBattery, awaited)
	h.draw, h.kept = keep.HoldDraw, keep.Within(j.job.KeepAsked)
	return keep.Edit(j.job.KeepAsked)
}

// decideStay sets when a model that nobody uses is let go.
func (p *Plan) decideStay(now time.Time, at resident, h *holding) []Effect {
	verdict := h.Holding
	verdict.Waiting = p.waitingFor(at)
	keep := p.settings.Residency.Keep(p.tier, p.onBattery, verdict)
	h.letGo = time.Time{}
	if keep.For >= h.kept {
		return nil // the server does it
	}
	h.letGo = h.ended.Add(keep.For)
	if h.letGo.After(now) {
		return nil
	}
	h.letGo, h.kept = time.Time{}, 0
	return []Effect{{Kind: Unload, Backend: at.backend, Model: at.model}}
}

// waitingFor returns how many jobs wait for a model on a backend.
func (p *Plan) waitingFor(at resident) (n int) {
	for _, j := range p.jobs {
		if !j.started && j.at == at {
			n++
		}
	}
	return n
}

// letGo decides anew about every model that nobody uses.
func (p *Plan) letGo(now time.Time) (effects []Effect) {
	for _, at := range p.idle(now) {
		effects = append(effects, p.decideStay(now, at, p.holdings[at])...)
	}
	return effects
}

// idle returns the models that servers keep although nobody uses them, in an
// order that does not depend on chance.
func (p *Plan) idle(now time.Time) (list []resident) {
	for at, h := range p.holdings {
		switch {
		case h.running > 0 || h.kept == 0:
		case now.Sub(h.ended) >= h.kept:
			h.kept, h.letGo = 0, time.Time{}
		default:
			list = append(list, at)
		}
	}
	slices.SortFunc(list, func(a, b resident) int {
		return cmp.Or(cmp.Compare(a.backend, b.backend), cmp.Compare(a.model, b.model))
	})
	return list
}

// nextLetGo is when the next model goes that costs to keep, by us or by its
// server; zero is never.
func (p *Plan) nextLetGo() (next time.Time) {
	for _, h := range p.holdings {
		next = earliest(next, h.letGo)
		if h.costly() && h.running == 0 {
			next = earliest(next, h.ended.Add(h.kept))
		}
	}
	return next
}

// Held returns since when a backend has been without work, and until when models
// that cost to keep stay there if nobody comes. It is false of one that works, or
// keeps none.
func (p *Plan) Held(now time.Time, backend string) (since, until time.Time, ok bool) {
	for at, h := range p.holdings {
		switch {
		case at.backend != backend:
		case h.running > 0:
			return since, until, false
		default:
			since = later(since, h.ended)
			if h.costly() {
				until = later(until, earliest(h.ended.Add(h.kept), h.letGo))
			}
		}
	}
	return since, until, until.After(now)
}

// costly reports whether a model is kept that a worse tier would have go.
func (h *holding) costly() bool { return h.draw > 0 && h.kept > 0 }

// holding reports whether there is such a model.
func (p *Plan) holding() bool {
	for _, h := range p.holdings {
		if h.costly() {
			return true
		}
	}
	return false
}

// atWork notes that a model is resident which a job is at work with: whoever
// comes next finds it there, even if it is being loaded yet, of which servers
// and drivers hear at different times.
func (p *Plan) atWork(c *job.Candidate, j *job.Job) {
	h := p.holdings[resident{c.ID, name(j)}]
	if h == nil || h.running == 0 || c.Model == nil || c.Model.Resident {
		return
	}
	m := *c.Model // which others share
	m.Resident = true
	c.Model = &m
}

// tail returns what keeping the model ready after the job is expected to take,
// beside what it is kept for already.
func (p *Plan) tail(now time.Time, ask *Ask, c *job.Candidate) power.Energy {
	var h residency.Holding
	known := p.holdings[resident{c.ID, name(&ask.Job)}]
	if known != nil {
		h.Gaps = known.Gaps
	}
	costs(&h, c)
	rules := &p.settings.Residency
	tail := rules.Tail(h, rules.Keep(ask.Tier, ask.OnBattery, h).For)
	switch {
	case tail == 0 || c.Model == nil || !c.Model.Resident:
		return tail
	case known == nil || known.running > 0:
		return 0 // it is that of whoever had the model loaded
	default:
		return max(0, tail-rules.Tail(h, known.left(now)))
	}
}

// left returns for how long an idle model is kept from now on.
func (h *holding) left(now time.Time) time.Duration {
	until := h.ended.Add(h.kept)
	if !h.letGo.IsZero() {
		until = h.letGo
	}
	return max(0, until.Sub(now))
}
