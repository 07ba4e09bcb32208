package daemon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/backend/ollama"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/dbus/bus"
	"github.com/joulemux/joulemux/dbus/network"
)

// newPuller returns what fetches models.
func (d *daemon) newPuller(c config.Config) *pull.Puller {
	return pull.New(pull.Parts{Source: source{d.backends}, Conditions: d.pullConditions, Log: d.Log}, pullRules(c))
}

func pullRules(c config.Config) pull.Rules {
	return pull.Rules{OnBattery: c.Pull.OnBattery, OnMetered: c.Pull.OnMetered, Registries: c.Pull.Registries}
}

// source has backends fetch models.
type source struct{ backends *backend.Set }

// Pull has a backend fetch a model.
func (s source) Pull(ctx context.Context, o pull.Order, each func(pull.Step)) error {
	b := s.backends.Current().Find(o.Backend)
	if b == nil {
		return &job.Error{Code: job.BackendNotFound, Detail: o.Backend}
	}
	err := ollama.Pull(ctx, b.Server().Do, o.Model, o.Insecure, func(s ollama.Step) { each(pull.Step(s)) })
	var said *job.Error
	switch {
	case err == nil:
		s.backends.Stale()
		return nil
	case errors.As(err, &said):
		named := *said
		named.Detail = b.ID + ": " + said.Detail
		return &named
	case errors.As(err, new(*ollama.CutError)):
		return fmt.Errorf("%w: %w", pull.ErrCut, err)
	default:
		return err
	}
}

// How long a pull waits for NetworkManager, and how often is looked how the
// machine is powered while it runs, where nobody reports that.
const (
	networkPatience = 5 * time.Second // who is later may have a network that costs
	lookAgain       = time.Minute
)

// pullConditions yields how the machine is powered and whether its network is
// metered, and again when that changes. Only as long as somebody reads it is
// NetworkManager listened to.
func (d *daemon) pullConditions(ctx context.Context) iter.Seq[pull.Conditions] {
	return func(yield func(pull.Conditions) bool) {
		ctx, stop := context.WithCancel(ctx)
		var reporters sync.WaitGroup
		defer reporters.Wait()
		defer stop()
		battery, metered := make(chan bool), make(chan network.Metered)
		reporters.Go(func() { d.reportBattery(ctx, battery) })
		reporters.Go(func() {
			_ = network.Watch(ctx, bus.SystemAddress(), d.Log, func(m network.Metered) { send(ctx, metered, m) })
		})
		enough := time.NewTimer(networkPatience)
		defer enough.Stop()
		now, heard := pull.Conditions{Network: pull.Unknown}, 0
		for {
			select {
			case now.OnBattery = <-battery:
				heard |= 1
			case m := <-metered:
				now.Network = networks[m]
				heard |= 2
			case <-enough.C:
				heard |= 2
			case <-ctx.Done():
				return
			}
			if heard == 3 && !yield(now) {
				return
			}
		}
	}
}

var networks = map[network.Metered]pull.Network{network.Yes: pull.Metered, network.No: pull.Unmetered, network.Unknown: pull.Unknown}

// reportBattery tells whether the machine discharges, and when that changes.
func (d *daemon) reportBattery(ctx context.Context, to chan<- bool) {
	var reporting sync.WaitGroup
	defer reporting.Wait()
	d.tiers.Look(ctx)
	reporting.Go(func() {
		for again := time.NewTicker(lookAgain); ; {
			select {
			case <-again.C:
				d.tiers.Look(ctx) // which does nothing where somebody reports
			case <-ctx.Done():
				again.Stop()
				return
			}
		}
	})
	first, was := true, false
	for now := range d.tiers.Watch(ctx) {
		if on := now.Supply.Discharging; first || on != was {
			first, was = false, on
			send(ctx, to, on)
		}
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}
