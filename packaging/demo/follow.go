package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/latest"
	"github.com/joulemux/joulemux/packaging/rig"
)

// follower runs "joulemux status --follow", and keeps the newest of what it
// says.
type follower struct {
	process *rig.Process
	status  latest.Value[wire.Status]
}

func (l *laptop) follow(ctx context.Context) (*follower, error) {
	out, in := io.Pipe()
	cmd := l.command(ctx, l.file("bin", "joulemux"), "status", "--follow", "--json")
	cmd.Stdout, cmd.Stderr = in, l.log
	p, err := rig.Start(cmd)
	if err != nil {
		return nil, err
	}
	f := &follower{process: p}
	go f.read(out)
	go func() {
		<-p.Done()
		_ = in.Close()
	}()
	l.keep(p)
	return f, nil
}

// read publishes until there is no more to read.
func (f *follower) read(out *io.PipeReader) {
	lines := json.NewDecoder(out)
	for {
		var s wire.Status
		if err := lines.Decode(&s); err != nil {
			_ = out.CloseWithError(err) // For the client not to wait for us.
			return
		}
		f.status.Publish(s)
	}
}

// await waits, for 20 seconds at most, for a status that is as wanted. The
// longest that the daemon takes by design is 3 seconds: line power has to last.
func (f *follower) await(ctx context.Context, wanted func(wire.Status) bool) (wire.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("waited 20 seconds in vain"))
	defer cancel()
	go func() {
		select {
		case <-f.process.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	var s wire.Status
	for s = range f.status.Watch(ctx) {
		if wanted(s) {
			return s, nil
		}
	}
	return s, fmt.Errorf("%w; the daemon last said tier %q (%s), %s", context.Cause(ctx), s.Tier, s.TierReason, s.Supply.Text)
}

// allServe says that each device can take jobs for the model.
func (l *laptop) allServe(s wire.Status) bool {
	healthy := 0
	for _, b := range s.Backends {
		if b.Status.State == "healthy" && len(b.Capabilities.Models) > 0 {
			healthy++
		}
	}
	return healthy == len(l.devices)
}

// at says that the daemon knows of a charge, and is in a tier.
func at(tier string, charge int) func(wire.Status) bool {
	return func(s wire.Status) bool {
		return s.Tier == tier && math.Round(s.Supply.ChargePercent) == float64(charge)
	}
}
