package plan

import "github.com/joulemux/joulemux/daemon/job"

// held returns how much of a job's prompt c has probably read before: servers
// keep what each slot has read last. A model that is loaded anew has read
// nothing.
func (p *Plan) held(c *job.Candidate, j *job.Job) (most int) {
	at := resident{c.ID, name(j)}
	if c.Model == nil || !c.Model.Resident {
		delete(p.prompts, at)
		return 0
	}
	return p.shared(at, j)
}

// shared returns how much of a job's prompt a model has read last where it is.
func (p *Plan) shared(at resident, j *job.Job) (most int) {
	for _, read := range p.prompts[at] {
		most = max(most, read.Shared(j.Prompt))
	}
	return most
}

// keepPrompt remembers what a backend has read, in place of what it was an
// addition to, or else of the oldest.
func (p *Plan) keepPrompt(j *placed) {
	if len(j.job.Prompt) == 0 {
		return
	}
	kept := p.prompts[j.at]
	slots := max(1, j.decision.Options[0].Slots)
	out := 0
	for i, read := range kept {
		if read.Shared(j.job.Prompt) > 0 {
			out = i
		}
	}
	if len(kept) >= slots {
		kept = append(kept[:out:out], kept[out+1:]...)
	}
	p.prompts[j.at] = append(kept, j.job.Prompt)
}
