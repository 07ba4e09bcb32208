package backend

import "time"

// Metrics tell how a backend has done of late.
type Metrics struct {
	// FirstToken is the mean time to the first token of the last successes;
	// zero if there were none. Failures have no latency.
	FirstToken time.Duration
	// PerMinute counts the jobs of the last minute, and ErrorRate is the part
	// of them that failed.
	PerMinute int
	ErrorRate float64
}

// window is for how many seconds jobs are counted.
const window = 60

// remembered is how many successes the mean time to the first token is of.
const remembered = 32

// meter counts jobs by the second, in a ring.
type meter struct {
	seconds [window]struct {
		at           int64 // Unix time
		jobs, errors int
	}
	latencies []time.Duration
	next      int
}

// served counts a success.
func (m *meter) served(now time.Time, firstToken time.Duration) {
	m.count(now, 0)
	if len(m.latencies) < remembered {
		m.latencies = append(m.latencies, firstToken)
		return
	}
	m.latencies[m.next] = firstToken
	m.next = (m.next + 1) % remembered
}

// failed counts a failure.
func (m *meter) failed(now time.Time) { m.count(now, 1) }

func (m *meter) count(now time.Time, errors int) {
	s := &m.seconds[now.Unix()%window]
	if s.at != now.Unix() {
		s.at, s.jobs, s.errors = now.Unix(), 0, 0
	}
	s.jobs++
	s.errors += errors
}

func (m *meter) summary(now time.Time) (sum Metrics) {
	errors := 0
	for _, s := range m.seconds {
		if now.Unix()-s.at < window {
			sum.PerMinute += s.jobs
			errors += s.errors
		}
	}
	if sum.PerMinute > 0 {
		sum.ErrorRate = float64(errors) / float64(sum.PerMinute)
	}
	for _, l := range m.latencies {
		sum.FirstToken += l / time.Duration(len(m.latencies))
	}
	return sum
}
