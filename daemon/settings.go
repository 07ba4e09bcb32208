package daemon

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/dispatch"
	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/quota"
	"github.com/joulemux/joulemux/daemon/residency"
	"github.com/joulemux/joulemux/daemon/route"
	"github.com/joulemux/joulemux/power"
)

// specs returns the backends that are configured, and where others are looked
// for.
func specs(c config.Config) []backend.Spec {
	var list []backend.Spec
	for _, b := range c.Backends {
		list = append(list, backend.Spec{
			ID: b.ID, Name: b.Name, Type: b.Type, Class: b.Hardware, Endpoint: b.Endpoint, Models: b.Models, Priority: b.Priority, Slots: b.Slots, Memory: b.Memory,
			KeyFile: b.KeyFile, KeyCredential: b.KeyCredential, CA: b.CA, Leave: b.Leave, Price: b.Price,
			Profile: job.Profile{Draw: b.Power, FirstToken: b.Latency, Decode: b.TokensPerSec, HoldDraw: b.Hold},
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

func (d *daemon) dispatchSettings(c config.Config) dispatch.Settings {
	return dispatch.Settings{
		Quota: quotas(c.Limits),
		Rules: rules(c), Residency: kept(c), Learn: c.Routing.Learn, Models: c.Models, AutoPull: dispatch.AutoPull(c.Pull.Auto), MaxPrompt: c.Limits.Prompt, LoadLimit: c.Limits.Load, Refusal: d.refusal,
	}
}

// quotas are what clients may have.
func quotas(l config.Limits) quota.Rules {
	r := quota.Rules{Each: quota.Limits(l.PerClient), Named: make(map[string]quota.Limits, len(l.Clients))}
	for name, q := range l.Clients {
		r.Named[name] = quota.Limits(q)
	}
	return r
}

// rules are the defaults with what is configured over them.
func rules(c config.Config) route.Rules {
	r := route.DefaultRules()
	r.Tiers = maps.Clone(r.Tiers)
	r.PowerAware, r.OptimizeLatency = c.Routing.PowerAware, c.Routing.AutoOptimizeLatency
	r.DefaultBackend = c.Routing.DefaultBackend
	for due, chosen := range map[*route.Due]config.Due{
		&r.Chat: c.Routing.Chat, &r.Completion: c.Routing.Completion, &r.Background: c.Routing.Background,
	} {
		choose(&due.After, chosen.After)
		choose(&due.PerToken, chosen.PerToken)
	}
	choose(&r.MayMiss, c.Routing.MayMiss)
	choose(&r.InTime, c.Routing.InTime)
	if !c.Routing.Curious {
		r.Curiosity = 0
	}
	for tier, chosen := range c.Tiers {
		rule := r.Tiers[tier]
		choose(&rule.Worth, chosen.SecondWorth)
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

// kept are the rules for what stays in memory, likewise.
func kept(c config.Config) residency.Rules {
	r := residency.DefaultRules()
	for tier, chosen := range c.Tiers {
		rule := r.Tiers[tier]
		choose(&rule.Costly, chosen.KeepAlive)
		choose(&rule.Free, chosen.KeepAliveFree)
		r.Tiers[tier] = rule
	}
	return r
}

// choose puts what was chosen, if anything was, in the place of a default.
func choose[T any](to, chosen *T) {
	if chosen != nil {
		*to = *chosen
	}
}

func (d *daemon) doorSettings(c config.Config) door.Settings {
	return door.Settings{Origins: c.Server.Origins, Hosts: c.Server.Hosts, RequireToken: c.Server.RequireToken, Tokens: d.tokens}
}

func (d *daemon) httpSettings(c config.Config) httpapi.Settings {
	return httpapi.Settings{
		MaxBody: c.Limits.Body, AllowAdmin: c.Server.AllowAdmin, AutoPull: c.Pull.Auto == "on",
		Tariff: tariff(c.Energy), Refusal: d.refusal,
	}
}

// tariff is what energy costs, or nil if nobody said.
func tariff(e config.Energy) *wire.Tariff {
	if e.PricePerKWh == nil {
		return nil
	}
	return &wire.Tariff{PricePerKWh: *e.PricePerKWh, Currency: e.Currency}
}
