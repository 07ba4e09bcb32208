package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/power"
)

// What the file is read with.
type (
	section = document.Section
	fields  = document.Fields
)

// Parse reads a configuration from text. The error is of type document.Faults, and
// holds all of them at once.
func Parse(text []byte) (Config, error) {
	c := Default()
	p := parser{Config: &c}
	if err := document.Read(text, p.file); err != nil {
		return Config{}, err
	}
	return c, nil
}

// parser fills in a configuration.
type parser struct {
	*Config
	// configured are the ids of all backends, with the section of each.
	configured map[string]section
	// wanted is where the default backend was named, if it was.
	wanted *section
	// ports tells that the user said where to look for servers.
	ports bool
}

// note records that something is understood and has no effect.
func (p *parser) note(s section, text string) {
	p.Notes = append(p.Notes, fmt.Sprintf("line %d: %s: %s", s.Line(), s.Key(), text))
}

func (p *parser) file(s section) {
	s.Mapping(fields{
		"server":     p.server,
		"backends":   p.backends,
		"discover":   p.discover,
		"routing":    p.routing,
		"models":     p.models,
		"thresholds": p.thresholds,
		"tiers":      p.tiers,
		"limits":     p.limits,
		"cache":      p.cache,
		"energy":     p.energy,
		"monitoring": p.monitoring,
	})
	p.validate(s)
}

// validate checks what takes more than one value to see.
func (p *parser) validate(s section) {
	if t := p.Policy; !(t.Critical <= t.Low && t.Low <= t.Saver) {
		s.Within("thresholds").Fault("want critical_percent <= low_percent <= saver_percent, got %v, %v and %v", float64(t.Critical), float64(t.Low), float64(t.Saver))
	}
	if p.Server.GRPCPort == p.Server.HTTPPort && p.Server.HTTPPort != 0 {
		s.Within("server").Fault("http_port and grpc_port are both %d", p.Server.HTTPPort)
	}
	if len(p.configured) > 0 && !p.ports {
		// Who says which servers there are does not want others found.
		p.Ports = nil
	}
	if p.wanted != nil && len(p.configured) > 0 && len(p.Ports) == 0 {
		if _, ok := p.configured[p.Routing.DefaultBackend]; !ok {
			p.wanted.Fault("no backend %q is configured%s", p.Routing.DefaultBackend, document.Suggestion(p.Routing.DefaultBackend, maps.Keys(p.configured)))
		}
	}
}

func (p *parser) server(s section) {
	s.Mapping(fields{
		"socket":        func(s section) { s.Text(&p.Server.Socket) },
		"host":          p.host,
		"http_port":     func(s section) { s.Integer(&p.Server.HTTPPort, 0, 65535) },
		"grpc_port":     func(s section) { s.Integer(&p.Server.GRPCPort, 0, 65535) },
		"allow_admin":   func(s section) { s.Flag(&p.Server.AllowAdmin) },
		"origins":       p.origins,
		"hosts":         p.hosts,
		"require_token": func(s section) { s.Flag(&p.Server.RequireToken) },
	})
}

func (p *parser) host(s section) {
	s.Text(&p.Server.Host)
	if p.Server.Host == "localhost" {
		p.Server.Host = "127.0.0.1"
	}
	switch ip := net.ParseIP(p.Server.Host); {
	case ip == nil:
		s.Fault("%q is no IP address, such as 127.0.0.1", p.Server.Host)
	case !ip.IsLoopback():
		p.Server.HostLine = s.Line()
		p.note(s, "other machines are let in who show a token, and nothing is encrypted: who is on the way can read tokens, prompts and answers")
	}
}

// hosts reads the names of this machine.
func (p *parser) hosts(s section) {
	s.List(func(s section) {
		var name string
		s.Text(&name)
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if name == "" || strings.ContainsAny(name, ":/*@ ") {
			s.Fault("want a name such as desk.example.org, without a port, got %q", name)
		}
		p.Server.Hosts = append(p.Server.Hosts, name)
	})
}

// origins reads which pages may ask.
func (p *parser) origins(s section) {
	s.List(func(s section) {
		var origin string
		s.Text(&origin)
		if origin == "*" {
			p.note(s, "any web page that this user opens may ask, and read the answers")
		}
		p.Server.Origins = append(p.Server.Origins, origin)
	})
}

func (p *parser) discover(s section) {
	s.Mapping(fields{
		"ports": func(s section) {
			p.ports, p.Ports = true, nil
			s.List(func(s section) {
				port := 0
				s.Integer(&port, 1, 65535)
				if slices.Contains(p.Ports, port) {
					s.Fault("port %d is there twice", port)
				}
				p.Ports = append(p.Ports, port)
			})
		},
	})
}

func (p *parser) routing(s section) {
	s.Mapping(fields{
		"default_backend":       func(s section) { p.wanted = &s; s.Text(&p.Routing.DefaultBackend) },
		"power_aware":           func(s section) { s.Flag(&p.Routing.PowerAware) },
		"learn":                 func(s section) { s.Flag(&p.Routing.Learn) },
		"auto_optimize_latency": func(s section) { s.Flag(&p.Routing.AutoOptimizeLatency) },
		"curiosity":             func(s section) { s.Flag(&p.Routing.Curious) },
		"deadlines":             p.deadlines,
		"may_miss": func(s section) {
			p.Routing.MayMiss = new(float64)
			s.Number(p.Routing.MayMiss, 0, 1)
		},
		"in_time_joules": func(s section) {
			var joules float64
			s.Number(&joules, 0, 100_000)
			worth := power.Joules(joules)
			p.Routing.InTime = &worth
		},
	})
}

// aWeek is in seconds, and longer than anybody waits for an answer, or for the
// next question.
const aWeek = 7 * 24 * 3600

func (p *parser) deadlines(s section) {
	due := func(to *Due) func(section) {
		return func(s section) {
			s.Mapping(fields{
				"after_seconds":     func(s section) { to.After = someSeconds(s, aWeek) },
				"per_token_seconds": func(s section) { to.PerToken = someSeconds(s, 3600) },
			})
		}
	}
	s.Mapping(fields{
		"chat":       due(&p.Routing.Chat),
		"completion": due(&p.Routing.Completion),
		"background": due(&p.Routing.Background),
	})
}

// models reads which model jobs have that name none, and when one is fetched.
func (p *parser) models(s section) {
	s.Mapping(fields{
		"default":   p.defaultModel,
		"auto_pull": func(s section) { s.OneOf(&p.Pull.Auto, "never", "ask", "on") },
		"pull": func(s section) {
			s.Mapping(fields{
				"on_battery": func(s section) { s.Flag(&p.Pull.OnBattery) },
				"on_metered": func(s section) { s.Flag(&p.Pull.OnMetered) },
				"registries": func(s section) { s.List(func(s section) { registry(s, &p.Pull.Registries) }) },
			})
		},
	})
}

// registry reads the host of one, as it stands in the names of models.
func registry(s section, to *[]string) {
	var host string
	if s.Text(&host); host == "" || strings.Trim(host, hostLetters) != "" {
		s.Fault("want a host as names of models begin with it, such as hf.co, got %q", host)
		return
	}
	*to = append(*to, strings.ToLower(host))
}

const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:[]"

// defaultModel reads the default model: one for all tiers, or one by tier.
func (p *parser) defaultModel(s section) {
	set := func(t power.Tier) func(section) {
		return func(s section) {
			var name string
			s.Text(&name)
			p.Models[t] = name
		}
	}
	if !s.IsMapping() {
		set(power.TierUnknown)(s)
		return
	}
	byTier := fields{"other": set(power.TierUnknown)}
	for _, t := range power.Tiers()[1:] {
		byTier[t.String()] = set(t)
	}
	s.Mapping(byTier)
}

func (p *parser) thresholds(s section) {
	percent := func(to *power.Charge) func(section) {
		return func(s section) { s.Number((*float64)(to), 0, 100) }
	}
	seconds := func(to *time.Duration) func(section) {
		return func(s section) { readSeconds(s, to, 0, 3600) }
	}
	s.Mapping(fields{
		"saver_percent":         percent(&p.Policy.Saver),
		"low_percent":           percent(&p.Policy.Low),
		"critical_percent":      percent(&p.Policy.Critical),
		"recovery_percent":      percent(&p.Policy.Recovery),
		"steady_line_seconds":   seconds(&p.Policy.SteadyLine),
		"steady_charge_seconds": seconds(&p.Policy.SteadyCharge),
	})
}

func readSeconds(s section, to *time.Duration, least, most float64) {
	n := to.Seconds()
	s.Number(&n, least, most)
	*to = time.Duration(n * float64(time.Second))
}

// someSeconds reads a time that has no default here.
func someSeconds(s section, most float64) *time.Duration {
	var d time.Duration
	readSeconds(s, &d, 0, most)
	return &d
}

func (p *parser) tiers(s section) {
	byTier := make(fields)
	for _, t := range power.Tiers() {
		byTier[t.String()] = func(s section) {
			var tier Tier
			s.Mapping(fields{
				"second_worth_watts": func(s section) {
					var watts float64
					s.Number(&watts, 0, 1e6)
					worth := power.Watts(watts)
					tier.SecondWorth = &worth
				},
				"dgpu":                    func(s section) { s.OneOf(&tier.DiscreteGPU, "always", "in-time", "latency-critical", "named", "never") },
				"background":              func(s section) { s.OneOf(&tier.Background, "run", "wait", "refuse") },
				"keep_alive_seconds":      func(s section) { tier.KeepAlive = someSeconds(s, aWeek) },
				"keep_alive_free_seconds": func(s section) { tier.KeepAliveFree = someSeconds(s, aWeek) },
			})
			p.Tiers[t] = tier
		}
	}
	s.Mapping(byTier)
}

// mebibytes reads a size of at least so much.
func mebibytes(to *int, least, most float64) func(section) {
	return func(s section) {
		n := float64(*to) / (1 << 20)
		s.Number(&n, least, most)
		*to = int(n * (1 << 20))
	}
}

func (p *parser) cache(s section) {
	s.Mapping(fields{
		"size_mib":     mebibytes(&p.Cache.Bytes, 0, 1024),
		"share":        func(s section) { s.Flag(&p.Cache.Share) },
		"idle_seconds": func(s section) { readSeconds(s, &p.Cache.Idle, 1, aWeek) },
	})
}

func (p *parser) limits(s section) {
	s.Mapping(fields{
		"body_mib":     mebibytes(&p.Limits.Body, 0.001, 4096),
		"prompt_mib":   mebibytes(&p.Limits.Prompt, 0.001, 4096),
		"load_seconds": func(s section) { readSeconds(s, &p.Limits.Load, 1, 86_400) },
		"per_client":   func(s section) { p.Limits.PerClient = quota(s) },
		"clients": func(s section) {
			p.Limits.Clients = make(map[string]Quota)
			s.Pairs(func(name string, s section) { p.Limits.Clients[name] = quota(s) })
		},
	})
}

// quota reads what a client may have.
func quota(s section) (q Quota) {
	var joules float64
	s.Mapping(fields{
		"jobs":            func(s section) { s.Integer(&q.Jobs, 1, 1_000_000) },
		"jobs_per_minute": func(s section) { s.Integer(&q.PerMinute, 1, 10_000) },
		"joules_per_day":  func(s section) { s.Number(&joules, 1, 1e9) },
	})
	q.PerDay = power.Joules(joules)
	return q
}

// longestCurrency is in characters.
const longestCurrency = 8

func (p *parser) energy(s section) {
	s.Mapping(fields{
		"price_per_kwh": func(s section) {
			price := 0.0
			if s.Number(&price, 0, 100_000) {
				p.Energy.PricePerKWh = &price
			}
		},
		"currency": func(s section) { currency(s, &p.Energy.Currency) },
	})
}

func currency(s section, to *string) {
	s.Text(to)
	if !printable(*to) || utf8.RuneCountInString(*to) > longestCurrency {
		s.Fault("want at most %d printable characters, such as EUR, got %q", longestCurrency, *to)
	}
}

// printable reports whether text has nothing in it that cannot be seen, or that
// drives a terminal.
func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) < 0
}

// monitoring reads what people know from an earlier system. Of it only the
// log's level has an effect here.
func (p *parser) monitoring(s section) {
	var flag bool
	var port int
	s.Mapping(fields{
		"enabled":   func(s section) { s.Flag(&flag) },
		"log_level": func(s section) { s.OneOf(&p.LogLevel, "debug", "info", "warn", "error") },
		"prometheus_port": func(s section) {
			s.Integer(&port, 0, 65535)
			p.note(s, "understood, but metrics have no port of their own: they are at /metrics on server.http_port")
		},
		"trace_requests": func(s section) {
			s.Flag(&flag)
			p.note(s, "understood, but requests are not traced; log_level debug logs every job")
		},
	})
}
