package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// reload reads the configuration again, and returns the status to show. One
// with faults changes nothing, and says so wherever somebody may look.
func (d *daemon) reload(ctx context.Context) (status string) {
	c, err := config.Load(d.Config)
	if err != nil {
		d.Log.Error("the configuration has faults, the old one stays in force", "err", err)
		return "configuration has faults, the old one is in force; " + d.status.text()
	}
	if reflect.DeepEqual(d.settings, c) {
		return d.status.text()
	}
	_ = d.tiers.Configure(ctx, c.Policy) // fails when the daemon ends
	d.backends.Configure(specs(c))
	d.dispatcher.Configure(dispatchSettings(c))
	d.http.Configure(httpSettings(c))
	if c.LogLevel != d.settings.LogLevel { // else what was set over the bus stays
		d.setLevel(c)
	}
	before, after := d.settings.Server, c.Server
	if before.Socket != after.Socket || before.Host != after.Host || before.HTTPPort != after.HTTPPort {
		d.Log.Warn("where to listen changes with a restart")
	}
	d.Log.Info("the configuration has changed")
	d.settings = c
	for _, note := range c.Notes {
		d.Log.Info("configuration", "note", note)
	}
	// Of backends that are new nothing is known yet, for whoever looks.
	d.backends.Look(ctx)
	d.showStatus()
	return d.status.text()
}

func (d *daemon) setLevel(c config.Config) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err == nil && !d.FixedLevel {
		d.Level.Set(level)
	}
}

// specs returns the backends that are configured, and where others are looked
// for.
func specs(c config.Config) []backend.Spec {
	var list []backend.Spec
	for _, b := range c.Backends {
		list = append(list, backend.Spec{
			ID: b.ID, Name: b.Name, Type: b.Type, Class: b.Hardware, Endpoint: b.Endpoint, Priority: b.Priority,
			Profile: job.Profile{Draw: b.Power, FirstToken: b.Latency, Decode: b.TokensPerSec},
		})
	}
	for _, port := range c.Ports {
		if configured(c, port) {
			continue
		}
		list = append(list, backend.Spec{
			Type: "ollama", Class: power.Unclassified, Found: true,
			Endpoint: url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))},
		})
	}
	return list
}

// configured reports whether a backend of the user's is at that port of this
// machine.
func configured(c config.Config, port int) bool {
	return slices.ContainsFunc(c.Backends, func(b config.Backend) bool {
		return local(b.Endpoint) && b.Endpoint.Port() == strconv.Itoa(port)
	})
}

func dispatchSettings(c config.Config) dispatch.Settings {
	return dispatch.Settings{Rules: rules(c), Models: c.Models, MaxPrompt: c.Limits.Prompt, LoadLimit: c.Limits.Load}
}

// rules are the defaults with what is configured over them.
func rules(c config.Config) route.Rules {
	r := route.DefaultRules()
	r.Tiers = maps.Clone(r.Tiers)
	r.PowerAware, r.OptimizeLatency = c.Routing.PowerAware, c.Routing.AutoOptimizeLatency
	r.DefaultBackend = c.Routing.DefaultBackend
	for tier, chosen := range c.Tiers {
		rule := r.Tiers[tier]
		if chosen.SecondWorth != nil {
			rule.Worth = *chosen.SecondWorth
		}
		if chosen.DiscreteGPU != "" {
			rule.DiscreteGPU = route.DiscreteGPU(chosen.DiscreteGPU)
		}
		if chosen.Background != "" {
			rule.Background = route.Background(chosen.Background)
		}
		r.Tiers[tier] = rule
	}
	return r
}

func httpSettings(c config.Config) httpapi.Settings {
	return httpapi.Settings{MaxBody: c.Limits.Body, Origins: c.Server.Origins, AllowAdmin: c.Server.AllowAdmin}
}

// Check returns what is wrong with the configuration at path, and the remarks
// about one that is valid.
func Check(path string) (notes []string, err error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration has faults: %w", err)
	}
	return c.Notes, nil
}
