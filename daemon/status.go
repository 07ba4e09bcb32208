package daemon

import (
	"context"
	"sync"

	"github.com/joulemux/joulemux/systemd"
)

// status is the line that "systemctl status" shows.
type status struct {
	mu     sync.Mutex
	faults string // of the configuration
	line   string
}

func (s *status) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults != "" {
		return s.faults + "; " + s.line
	}
	return s.line
}

// blamed is what is wrong with the configuration, or "".
func (s *status) blamed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// blame keeps what is wrong with the configuration, or that nothing is.
func (s *status) blame(faults string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

// set keeps the line, and reports whether it has become another.
func (s *status) set(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.line != line
	s.line = line
	return changed
}

func (d *daemon) followTiers(ctx context.Context) {
	for now := range d.tiers.Watch(ctx) {
		d.meter.Conditions(conditions(now))
		d.showStatus()
	}
}

func (d *daemon) followBackends(ctx context.Context) {
	for range d.backends.Watch(ctx) {
		d.showStatus()
	}
}

// showStatus tells the service manager the tier, and where a job would go.
func (d *daemon) showStatus() {
	now := d.tiers.Current()
	line := now.Tier.String() + " (" + string(now.Reason) + ")"
	if where, err := d.dispatcher.Prospect(now.Tier, d.cooled.Current()); err == nil {
		line += ", jobs go to " + where.Backend
	} else {
		line += ", no backend"
	}
	if d.status.set(line) {
		d.tell(systemd.Status(d.status.text()))
	}
}
