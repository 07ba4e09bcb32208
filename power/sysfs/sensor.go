package sysfs

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Sensor reads one domain of this machine. Those that are read concurrently
// wait for each other.
type Sensor struct {
	domain power.Domain
	files  []*attr // that it has open
	read   func() (power.Reading, error)
}

// Sensors finds every sensor that may be read. One that is not there, or that
// the kernel keeps from us, is simply not in the list. What sleeps now is left
// asleep, and is in it.
func Sensors(sys fs.FS) []*Sensor {
	rapl, _ := raplSensors(sys)
	sensors := append(rapl, amdSensors(sys, packageOf(rapl))...)
	npu, _ := npuSensors(sys, packageOf(sensors))
	return append(sensors, npu...)
}

// Unreadable returns the domains that this machine has sensors for, which only
// root may read.
func Unreadable(sys fs.FS) []power.Domain {
	rapl, closed := raplSensors(sys)
	open, npu := npuSensors(sys, packageOf(rapl))
	for _, s := range append(rapl, open...) {
		s.Close()
	}
	return append(closed, npu...)
}

// packageOf names the first package that sensors tell of, or is "".
func packageOf(sensors []*Sensor) string {
	i := slices.IndexFunc(sensors, func(s *Sensor) bool { return s.domain.Scope == power.ScopePackage })
	if i < 0 {
		return ""
	}
	return sensors[i].domain.Name
}

// Domain returns what the sensor tells of.
func (s *Sensor) Domain() power.Domain { return s.domain }

// Read looks at the sensor. It costs a system call or two, wakes nothing, and
// the error wraps power.ErrAsleep or power.ErrUnavailable where that is all.
func (s *Sensor) Read(context.Context) (power.Reading, error) {
	r, err := s.read()
	if err != nil {
		return power.Reading{}, fmt.Errorf("%s of %s: %w", s.domain.Source, s.domain.Name, unavailable(err))
	}
	r.At = time.Now()
	return r, nil
}

// Close closes the sensor's files. One that is read all the same opens them
// again.
func (s *Sensor) Close() {
	for _, f := range s.files {
		f.close()
	}
}
