package backend

import "cmp"

// The words for health, on every wire.
const (
	Healthy   = "healthy"
	Degraded  = "degraded" // some backends are healthy
	Unhealthy = "unhealthy"
	Asleep    = "asleep" // healthy, and its device sleeps
)

// State tells in a word whether the backend answers.
func (b *Backend) State() string {
	if b.Healthy {
		return Healthy
	}
	return Unhealthy
}

// Trouble says why the backend is given no jobs, or why those of late failed, or "".
func (b *Backend) Trouble() string { return cmp.Or(b.Problem, b.Suspect, b.Vetoed) }

// Health sums up: all backends are healthy, or some, or none, which it is too
// where there is none. Of each it tells, by id, the state, and of one that will
// do when a job needs it whether its device sleeps.
func (s Snapshot) Health() (status string, each map[string]string) {
	each = make(map[string]string, len(s))
	healthy := 0
	for _, b := range s {
		each[b.ID] = b.State()
		if b.Healthy {
			healthy++
			if b.Asleep {
				each[b.ID] = Asleep
			}
		}
	}
	switch healthy {
	case 0:
		return Unhealthy, each
	case len(s):
		return Healthy, each
	default:
		return Degraded, each
	}
}
