package simulate

import (
	"time"

	"github.com/joulemux/joulemux/power"
)

// phase is what a device does.
type phase int

const (
	idle phase = iota
	loading
	reading
	writing
)

// never is a time that does not come.
const never = time.Duration(1<<63 - 1)

// place is a device in a run: the model that it has and the job that it works
// on.
type place struct {
	*Device
	result *DeviceResult

	phase phase
	// until is when the phase is over; of an idle one that is never.
	until time.Duration
	job   *Job

	resident bool
	// keep is for how long the model stays once the job is over, and expires
	// when that is; negative is for ever.
	keep    time.Duration
	expires time.Duration
	// awake is until when the device draws on after the model is gone.
	awake time.Duration
}

// busy reports whether a job is there.
func (p *place) busy() bool { return p.job != nil }

// begin starts a job.
func (p *place) begin(j *Job, keep, now time.Duration) {
	p.job, p.keep, p.expires = j, keep, never
	j.Backend, j.Started = p.ID, now
	p.result.Jobs++
	if p.resident {
		p.enter(reading, now)
		return
	}
	j.Loaded = true
	p.resident = true
	p.result.Loads++
	p.enter(loading, now)
}

// enter begins a phase of the job.
func (p *place) enter(next phase, now time.Duration) {
	p.phase = next
	switch next {
	case loading:
		p.until = now + p.Load
	case reading:
		p.until = now + p.Prefilling(p.job.Prompt)
	case writing:
		p.job.FirstToken = now
		p.until = now + p.Decoding(p.job.Output)
	case idle:
		p.until = never
	}
}

// free ends the job, from where on the model is held.
func (p *place) free(now time.Duration) *Job {
	j := p.job
	j.Ended, j.Fate = now, Answered
	p.job = nil
	p.enter(idle, now)
	if p.keep >= 0 {
		p.expires = now + p.keep
	}
	return j
}

// unload lets the model go: now, or once the job is over.
func (p *place) unload(now time.Duration) {
	switch {
	case p.busy():
		p.keep = 0
	case p.resident:
		p.resident, p.expires = false, never
		p.awake = now + p.SleepAfter
	}
}

// draw is what the device takes now.
func (p *place) draw(now time.Duration) power.Power {
	switch {
	case p.phase == loading:
		return p.LoadDraw
	case p.phase == reading:
		return p.PrefillDraw
	case p.phase == writing:
		return p.DecodeDraw
	case p.resident || now < p.awake:
		return p.Hold
	default:
		return 0
	}
}

// asleep is when the device draws nothing any more, if it goes on drawing now
// without the model.
func (p *place) asleep(now time.Duration) time.Duration {
	if !p.resident && now < p.awake {
		return p.awake
	}
	return never
}

// spend accounts for the time from now to then, in which nothing changes.
func (p *place) spend(now, then time.Duration) {
	d := then - now
	e := p.draw(now).For(d)
	spent := &p.result.Spent
	switch p.phase {
	case loading:
		spent.Load += e
	case reading:
		spent.Prefill += e
	case writing:
		spent.Decode += e
	case idle:
		spent.Hold += e
	}
	if p.resident {
		p.result.Resident += d
	}
	if p.job != nil {
		p.result.Needed += d
		p.job.Energy += e
	}
}
