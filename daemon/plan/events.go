package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Ended tells that a job's attempt is over, or that a job waits no longer: its
// slot is the next one's. Of a job that is not here it says nothing.
func (p *Plan) Ended(now time.Time, id string, o Outcome) []Effect {
	j := p.jobs[id]
	if j == nil {
		return nil
	}
	if j.started && !o.Failed {
		p.learn(j, o)
	}
	effects := p.forget(now, id)
	if j.started {
		effects = append(effects, p.end(now, j)...)
	}
	return effects
}

// forget takes a job out of the plan, and starts those that can for it.
func (p *Plan) forget(now time.Time, id string) []Effect {
	delete(p.jobs, id)
	return p.start(now, p.queue.Leave(now, id))
}

// start begins jobs that have got their slot.
func (p *Plan) start(now time.Time, ids []string) (effects []Effect) {
	for _, id := range ids {
		j := p.jobs[id]
		j.started = true
		best := j.decision.Options[0].Candidate
		best.Held = p.shared(j.at, &j.job) // by now: the jobs before it may have begun alike
		p.begin(now, j)
		effects = append(effects, Effect{Kind: Start, ID: id, Backend: j.at.backend, Model: j.at.model, KeepAlive: p.keepAlive(j)})
	}
	return effects
}

// Tier tells which tier is in force. Where jobs wait was decided by the last
// one, so all that wait are reconsidered; and what is held too long for a worse
// one is let go.
func (p *Plan) Tier(now time.Time, tier power.Tier, onBattery bool) []Effect {
	if tier == p.tier && onBattery == p.onBattery {
		return nil
	}
	p.tier, p.onBattery = tier, onBattery
	return append(p.letGo(now), p.reconsiderWaiting(now)...)
}

// Tick does what has fallen due.
func (p *Plan) Tick(now time.Time) []Effect {
	effects := p.letGo(now)
	for _, id := range p.queue.Review(now) {
		effects = append(effects, Effect{Kind: Reconsider, ID: id})
	}
	return effects
}

// Next is when to call Tick; zero is never, unless something happens.
func (p *Plan) Next() time.Time { return earliest(p.queue.Next(), p.nextLetGo()) }

// earliest returns the earlier of two times, of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Watching reports whether anything here depends on the tier changing: a job
// that waits for a better one, or a model that is held.
func (p *Plan) Watching() bool { return len(p.queue.Parked()) > 0 || p.holding() }

// reconsiderWaiting has every job that waits placed again, those first that
// came first. Until it is, it stands in no line: what was decided holds no more.
func (p *Plan) reconsiderWaiting(now time.Time) (effects []Effect) {
	for _, id := range slices.Sorted(maps.Keys(p.jobs)) { // in no order of chance
		if j := p.jobs[id]; !j.started && j.at != (resident{}) {
			j.at = resident{}
			p.queue.Move(now, parked(&j.job))
		}
	}
	for _, id := range p.queue.Parked() {
		if !p.mustWait(&p.jobs[id].job) {
			effects = append(effects, Effect{Kind: Reconsider, ID: id})
		}
	}
	return effects
}
